"""How a request travels. The clients know these two interfaces only; four classes implement them.

| class                           | for                                                                |
|---------------------------------|--------------------------------------------------------------------|
| httpx_transport.Httpx           | Mags, by default: pools, proxies, every corner of HTTP             |
| async_httpx_transport.AsyncHttpx| AsyncMags                                                          |
| wire.Wire                       | the CLI: one connection, nothing imported but the standard library |
| testing.MockTransport           | tests of programs that use Mags                                    |
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from mags import __version__

AGENT = f"mags/{__version__} python/{sys.version_info[0]}.{sys.version_info[1]}"
"""What we say that we are."""

Body = bytes | Callable[[], Iterator[bytes]]
"""All of it, or how to begin to read it (again, when the request has to be repeated)."""


class Request(NamedTuple):
    """`target` is path and query; `timeout` the longest silence in seconds (None: the transport's own). `single`: its
    body can be read only once."""

    method: str
    target: str
    headers: Mapping[str, str] = {}
    body: Body | None = None
    timeout: float | None = None
    single: bool = False


class ConnectionBroke(Exception):
    """No (whole) answer. `sent`: the server may have seen the request. `refused`: nobody listens there."""

    def __init__(self, reason: str, *, sent: bool, refused: bool = False, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.sent, self.refused, self.timed_out = sent, refused, timed_out


class Exchange(Protocol):
    """An answer whose head is there. Header names are in small letters. Close it, also after an error."""

    status: int
    headers: Mapping[str, str]

    def chunks(self) -> Iterator[bytes]:
        """The body, as it comes. ConnectionBroke when it is cut off."""

    def close(self) -> None: ...


class AsyncExchange(Protocol):
    status: int
    headers: Mapping[str, str]

    def chunks(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Transport(Protocol):
    def open(self, request: Request) -> Exchange:
        """Send it and wait for the head of the answer. ConnectionBroke when there is none."""

    def close(self) -> None: ...


class AsyncTransport(Protocol):
    async def open_async(self, request: Request) -> AsyncExchange: ...

    async def aclose(self) -> None: ...
