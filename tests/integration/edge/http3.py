"""A client of HTTP/3 (RFC 9114): one request over QUIC. The curl of Debian 12 and httpx speak none."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset

Fields = list[tuple[bytes, bytes]]
Answer = tuple[dict[str, str], bytes]


class _Request(QuicConnectionProtocol):
    """One request on one connection; `answer` becomes (headers, body)."""

    answer: asyncio.Future[Answer]
    http: H3Connection

    def ask(self, fields: Fields, body: bytes, trailers: Fields) -> asyncio.Future[Answer]:
        self.http, self.answer = H3Connection(self._quic), asyncio.get_running_loop().create_future()
        self._headers: dict[str, str] = {}
        self._body = b""
        stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream, fields, end_stream=not (body or trailers))
        if body:
            self.http.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.http.send_headers(stream, trailers, end_stream=True)
        self.transmit()
        return self.answer

    def quic_event_received(self, event: QuicEvent) -> None:
        if not hasattr(self, "http") or self.answer.done():
            return
        ended = isinstance(event, StreamReset | ConnectionTerminated)
        for found in self.http.handle_event(event):
            if isinstance(found, HeadersReceived):
                self._headers |= {name.decode(): value.decode() for name, value in found.headers}
            if isinstance(found, DataReceived):
                self._body += found.data
            ended |= isinstance(found, HeadersReceived | DataReceived) and found.stream_ended
        if ended:
            self.answer.set_result((self._headers, self._body))


async def ask(
    host: str, port: int, fields: Fields, *, authority: Path, body: bytes = b"", trailers: Fields | None = None
) -> Answer:
    """Headers (`:status` among them; none when the server has reset the stream or the connection) and body of the
    answer to exactly these fields at 127.0.0.1; `authority` must have signed the certificate of `host`.
    ConnectionError when the handshake fails."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, server_name=host, verify_mode=ssl.CERT_REQUIRED
    )
    configuration.load_verify_locations(cafile=str(authority))
    async with asyncio.timeout(60):
        async with connect("127.0.0.1", port, configuration=configuration, create_protocol=_Request) as client:
            assert isinstance(client, _Request)
            return await client.ask(fields, body, trailers or [])


async def get(host: str, port: int, path: str, *, authority: Path) -> Answer:
    """https://HOST:PORT/PATH."""
    wish = {":method": "GET", ":scheme": "https", ":authority": f"{host}:{port}", ":path": path}
    return await ask(host, port, [(name.encode(), value.encode()) for name, value in wish.items()], authority=authority)
