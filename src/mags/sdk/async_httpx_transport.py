"""The transport of programs, on httpx: pooled connections, proxies from the environment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import httpx

from mags.sdk.httpx_failures import broke
from mags.sdk.settings import is_local
from mags.sdk.transports import Body, Request

LIMITS = httpx.Limits(max_connections=200, max_keepalive_connections=50)
CONNECT_S = 10.0


class AsyncHttpx:
    """`timeout`: the longest silence in seconds, where a request does not say its own."""

    def __init__(self, api_url: str, *, timeout: float) -> None:
        self._url, self._timeout = api_url, timeout
        self._client = httpx.AsyncClient(limits=LIMITS, trust_env=not is_local(api_url))

    async def open_async(self, request: Request) -> AsyncHttpxExchange:
        timeout = self._timeout if request.timeout is None else request.timeout
        prepared = self._client.build_request(
            request.method,
            self._url + request.target,
            headers=request.headers,
            content=_content(request.body),
            timeout=httpx.Timeout(timeout, connect=CONNECT_S),
        )
        try:
            return AsyncHttpxExchange(await self._client.send(prepared, stream=True))
        except httpx.TransportError as error:
            raise broke(error) from error

    async def aclose(self) -> None:
        await self._client.aclose()


class AsyncHttpxExchange:
    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_bytes():
                yield chunk
        except httpx.TransportError as error:
            raise broke(error) from error

    async def aclose(self) -> None:
        await self._response.aclose()


def _content(body: Body | None) -> bytes | AsyncIterator[bytes] | None:
    return _read(body) if callable(body) else body


async def _read(source: Callable[[], Iterator[bytes]]) -> AsyncIterator[bytes]:
    """Piece by piece; what blocks (a file) does not block others."""
    chunks = source()
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk
