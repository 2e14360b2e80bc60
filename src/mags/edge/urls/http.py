"""A small HTTP/1.1 server for Caddy's questions: requests without bodies, one at a time on a connection.

Its only client is our own Caddy, over a unix socket (the gate) or loopback (the question about certificates), so it
refuses whatever Caddy does not send.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import cast

import httptools

from mags.edge.tasks import Tasks
from mags.edge.urls.gate import Request, Response

log = logging.getLogger("mags.edge.http")

Handler = Callable[[Request], Awaitable[Response]]


class Connection(asyncio.Protocol):
    """One connection of Caddy's. `handler` must not raise."""

    def __init__(self, handler: Handler, tasks: Tasks) -> None:
        self._handler, self._tasks = handler, tasks
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._busy: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._busy is not None:
            self._busy.cancel()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the question is about an upgrade; it has been read and is being answered
        except httptools.HttpParserError as error:
            log.warning("Caddy sent what is no request: %s", error)
            self._transport.abort()

    # --- of the parser --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url, self._headers = b"", {}

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_message_complete(self) -> None:
        assert self._transport is not None
        if self._busy is not None and not self._busy.done():
            self._transport.abort()
            return
        target = self._headers.get("x-forwarded-uri", self._url.decode("latin-1"))
        request = Request(self._headers.get("host", ""), target, self._headers)
        keep = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self._busy = self._tasks.start(self._answer(request, keep))

    async def _answer(self, request: Request, keep: bool) -> None:
        response = await self._handler(request)
        assert self._transport is not None
        lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in response.headers]
        lines += [f"Content-Length: {len(response.body)}"]
        if not keep:
            lines.append("Connection: close")
        self._transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + response.body)
        if not keep:
            self._transport.close()
