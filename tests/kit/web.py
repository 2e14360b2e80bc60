"""A small HTTP/1.1 server that remembers what it was asked, and clients that speak bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

from mags.protocol import edge


@dataclass
class Seen:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class App:
    """A program in a VM: answers every request with `text`."""

    text: str = "hello"
    requests: list[Seen] = field(default_factory=list)
    connections: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while (seen := await read_request(reader)) is not None:
            self.requests.append(seen)
            body = self.text.encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            await writer.drain()


async def read_request(reader: asyncio.StreamReader) -> Seen | None:
    """The next request with its body (by length, or chunked); None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    seen = Seen(method, target, headers)
    if "content-length" in headers:
        seen.body = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).strip(), 16):
            seen.body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return seen


def answers(status: Literal["ok", "starting", "unknown", "stopped", "closed"], **more: Any) -> edge.Resolved:
    """What control says of a name."""
    return edge.Resolved(status=status, **more)


async def raw(port: int, data: bytes, *, seconds: float = 30.0) -> bytes:
    """Send exactly these bytes to 127.0.0.1:`port`; everything that comes until the end, or for `seconds`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seen = b""
    try:
        writer.write(data)
        async with asyncio.timeout(seconds):
            while more := await reader.read(1 << 16):
                seen += more
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return seen
