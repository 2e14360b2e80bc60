"""The processes of the edge's measurement: a fast backend, and a client that keeps it busy.

python -m bench.edge_parts backend           prints its port, serves until its input ends
python -m bench.edge_parts load PORT HOST REQUESTS CONNECTIONS      prints seconds and each latency in ms
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


class Backend(asyncio.Protocol):
    """Answers each request without a body at once, whatever it is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.rest = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        *requests, self.rest = (self.rest + data).split(b"\r\n\r\n")
        self.transport.write(ANSWER * len(requests))


class Client(asyncio.Protocol):
    """Asks again as soon as it has its answer, as long as `left` has requests."""

    def __init__(self, request: bytes, left: list[int], latencies: list[float], done: asyncio.Future[None]) -> None:
        self.request, self.left, self.latencies, self.done = request, left, latencies, done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.ask()

    def ask(self) -> None:
        self.seen = b""
        if self.left[0] > 0:
            self.left[0] -= 1
            self.asked = time.perf_counter()
            self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.seen += data
        if not self.seen.endswith(b"hello"):
            return
        if not self.seen.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"not the backend's answer: {self.seen[:200]!r}")
        self.latencies.append((time.perf_counter() - self.asked) * 1000)
        if len(self.latencies) == self.left[1] and not self.done.done():
            self.done.set_result(None)
        self.ask()


async def backend() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Backend, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


async def load(port: int, host: str, requests: int, connections: int) -> None:
    loop = asyncio.get_running_loop()
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\n\r\n".encode()
    latencies: list[float] = []
    done: asyncio.Future[None] = loop.create_future()
    left = [requests, requests]
    begin = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: Client(request, left, latencies, done), "127.0.0.1", port)
    async with asyncio.timeout(120):
        await done
    print(json.dumps([time.perf_counter() - begin, latencies]))


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    if role == "backend":
        uvloop.run(backend())
    else:
        uvloop.run(load(int(words[0]), words[1], int(words[2]), int(words[3])))
