"""A client of HTTP/3 (RFC 9114): one GET over QUIC. The curl of Debian 12 and httpx speak none."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent


class _Get(QuicConnectionProtocol):
    """One request on one connection; `answer` becomes (headers, body)."""

    answer: asyncio.Future[tuple[dict[str, str], bytes]]
    http: H3Connection

    def ask(self, authority: str, path: str) -> asyncio.Future[tuple[dict[str, str], bytes]]:
        self.http, self.answer = H3Connection(self._quic), asyncio.get_running_loop().create_future()
        self._headers: dict[str, str] = {}
        self._body = b""
        wish = {":method": "GET", ":scheme": "https", ":authority": authority, ":path": path}
        headers = [(name.encode(), value.encode()) for name, value in wish.items()]
        self.http.send_headers(self._quic.get_next_available_stream_id(), headers, end_stream=True)
        self.transmit()
        return self.answer

    def quic_event_received(self, event: QuicEvent) -> None:
        for found in self.http.handle_event(event) if hasattr(self, "http") else ():
            if isinstance(found, HeadersReceived):
                self._headers |= {name.decode(): value.decode() for name, value in found.headers}
            if isinstance(found, DataReceived):
                self._body += found.data
            if isinstance(found, HeadersReceived | DataReceived) and found.stream_ended and not self.answer.done():
                self.answer.set_result((self._headers, self._body))


async def get(host: str, port: int, path: str, *, authority: Path) -> tuple[dict[str, str], bytes]:
    """Headers (`:status` among them) and body of https://HOST:PORT/PATH at 127.0.0.1; `authority` must have signed the
    certificate. ConnectionError when the handshake fails."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, server_name=host, verify_mode=ssl.CERT_REQUIRED
    )
    configuration.load_verify_locations(cafile=str(authority))
    async with asyncio.timeout(60):
        async with connect("127.0.0.1", port, configuration=configuration, create_protocol=_Get) as client:
            assert isinstance(client, _Get)
            return await client.ask(f"{host}:{port}", path)
