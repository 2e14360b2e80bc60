# Made from async_httpx_transport.py by `./dev fmt`; edit that.
"""The transport of programs, on httpx: pooled connections, proxies from the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import httpx

from mags.sdk.httpx_failures import broke
from mags.sdk.settings import is_local
from mags.sdk.transports import Body, Request

LIMITS = httpx.Limits(max_connections=200, max_keepalive_connections=50)
CONNECT_S = 10.0


class Httpx:
    """`timeout`: the longest silence in seconds, where a request does not say its own."""

    def __init__(self, api_url: str, *, timeout: float) -> None:
        self._url, self._timeout = api_url, timeout
        self._client = httpx.Client(limits=LIMITS, trust_env=not is_local(api_url))

    def open(self, request: Request) -> HttpxExchange:
        timeout = self._timeout if request.timeout is None else request.timeout
        prepared = self._client.build_request(
            request.method,
            self._url + request.target,
            headers=request.headers,
            content=_content(request.body),
            timeout=httpx.Timeout(timeout, connect=CONNECT_S),
        )
        try:
            return HttpxExchange(self._client.send(prepared, stream=True))
        except httpx.TransportError as error:
            raise broke(error) from error

    def close(self) -> None:
        self._client.close()


class HttpxExchange:
    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response

    def chunks(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_bytes()
        except httpx.TransportError as error:
            raise broke(error) from error

    def close(self) -> None:
        self._response.close()


def _content(body: Body | None) -> bytes | Iterator[bytes] | None:
    return _read(body) if callable(body) else body


def _read(source: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """Piece by piece; what blocks (a file) does not block others."""
    chunks = source()
    while (chunk := next(chunks, None)) is not None:
        yield chunk
