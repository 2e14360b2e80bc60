"""`MockTransport`: answers made by a function, for tests of programs that use Mags.

    def handler(request):
        assert request.method == "POST"
        return 202, {"request_id": "42", "status": "accepted"}

    m = Mags("token", "http://mags.test", transport=MockTransport(handler))

The same object serves AsyncMags. Nothing is retried with less than the real waits, unless `max_tries=1` is given.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from mags.sdk.transports import ConnectionBroke, Request

Answer = int | dict[str, Any] | list[Any] | bytes | tuple[int, Any] | tuple[int, Any, Mapping[str, str]] | Exception


class SeenRequest:
    """A request as a handler likes it: `path` without /api/v1, `query`, `json` and `body` decoded, `headers`."""

    def __init__(self, request: Request) -> None:
        parts = urlsplit(request.target)
        self.method, self.headers = request.method, request.headers
        self.path = parts.path.removeprefix("/api/v1")
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        body = request.body
        self.body: bytes = b"".join(body()) if callable(body) else body or b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.method} {self.path}>"


class MockTransport:
    """`handler` gives a status, a JSON value, bytes, (status, value), (status, value, headers), or an exception to
    raise (`ConnectionBroke` for a lost connection). `seen` holds the requests."""

    def __init__(self, handler: Callable[[SeenRequest], Answer]) -> None:
        self._handler = handler
        self.seen: list[SeenRequest] = []
        self.closed = False

    def open(self, request: Request) -> MockExchange:
        if self.closed:
            raise ConnectionBroke("the transport is closed", sent=False)
        seen = SeenRequest(request)
        self.seen.append(seen)
        return _exchange(self._handler(seen))

    async def open_async(self, request: Request) -> AsyncMockExchange:
        return AsyncMockExchange(self.open(request))

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class MockExchange:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self._body = status, body
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in headers.items()}

    def chunks(self) -> Iterator[bytes]:
        if self._body:
            yield self._body

    def close(self) -> None:
        pass


class AsyncMockExchange:
    def __init__(self, exchange: MockExchange) -> None:
        self.status, self._exchange = exchange.status, exchange
        self.headers: Mapping[str, str] = exchange.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._exchange.chunks():
            yield chunk

    async def aclose(self) -> None:
        pass


def _exchange(answer: Answer) -> MockExchange:
    if isinstance(answer, Exception):
        raise answer
    status, value = 200, answer
    headers: Mapping[str, str] = {}
    if isinstance(answer, int):
        status, value = answer, {}
    elif isinstance(answer, tuple):
        status, value = answer[0], answer[1]
        headers = answer[2] if len(answer) == 3 else {}
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return MockExchange(status, headers, body)
