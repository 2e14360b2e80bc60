"""A client of HTTP/2 (RFC 9113) that sends whatever fields it is given: one request on a connection over TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

AS_IT_IS = H2Configuration(
    client_side=True,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
    validate_inbound_headers=False,
)


async def ask(
    host: str,
    port: int,
    fields: list[tuple[bytes, bytes]],
    *,
    authority: Path,
    body: bytes = b"",
    trailers: list[tuple[bytes, bytes]] | None = None,
) -> tuple[int, bytes]:
    """Status and body of the answer to exactly these fields at 127.0.0.1; status 0 when there is none (the server has
    reset the stream, or ended the connection). `authority` must have signed the certificate of `host`."""
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    connection = H2Connection(AS_IT_IS)
    connection.initiate_connection()
    connection.send_headers(1, fields, end_stream=not (body or trailers))
    if body:
        connection.send_data(1, body, end_stream=not trailers)
    if trailers:
        connection.send_headers(1, trailers, end_stream=True)
    status, answer = 0, b""
    try:
        async with asyncio.timeout(60):
            writer.write(connection.data_to_send())
            while data := await reader.read(1 << 16):
                for event in connection.receive_data(data):
                    if isinstance(event, ResponseReceived):
                        status = int(dict(event.headers)[b":status"])
                    elif isinstance(event, DataReceived):
                        answer += event.data
                        connection.acknowledge_received_data(event.flow_controlled_length, 1)
                    elif isinstance(event, StreamEnded | StreamReset | ConnectionTerminated):
                        return status, answer
                writer.write(connection.data_to_send())
    except (ConnectionError, ProtocolError):
        pass
    finally:
        writer.close()
    return status, answer
