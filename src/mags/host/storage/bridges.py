"""Files for threads whose other end is asynchronous: what a thread writes comes out as chunks, and the reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

T = TypeVar("T")

CHUNK = 256 << 10
DEPTH = 8
"""Chunks that may wait between the two sides."""
READ_LIMIT = 16 << 20
"""Bytes of one read: an archive that claims a larger header is hostile."""


class Sink:
    """A file to write to in a thread. The chunks are taken with `chunks`; a reader that stops ends the writer."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(DEPTH)
        self._buffer = bytearray()
        self._closed = False

    def write(self, data: bytes) -> int:
        self._buffer += data
        while len(self._buffer) >= CHUNK:
            self._put(bytes(self._buffer[:CHUNK]))
            del self._buffer[:CHUNK]
        return len(data)

    def _put(self, chunk: bytes | None) -> None:
        if self._closed:
            raise BrokenPipeError("nobody reads any more")
        asyncio.run_coroutine_threadsafe(self._queue.put(chunk), self._loop).result()

    async def chunks(
        self, work: Callable[[], None], run: Callable[[Callable[[], None]], asyncio.Future[None]]
    ) -> AsyncGenerator[bytes, None]:
        """What `work`, run in a thread by `run`, writes. Its error is raised here at the end."""

        def whole() -> None:
            try:
                work()
                if self._buffer:
                    self._put(bytes(self._buffer))
            finally:
                if not self._closed:
                    self._put(None)

        running = run(whole)
        try:
            while (chunk := await self._queue.get()) is not None:
                yield chunk
            await running
        finally:
            self._closed = True
            while not running.done():
                while not self._queue.empty():
                    self._queue.get_nowait()
                await asyncio.sleep(0.01)
            await asyncio.gather(running, return_exceptions=True)


class Source:
    """A file to read from in a thread; its bytes come from an asynchronous iterator. After `close`, reading fails."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunks = chunks
        self._buffer = bytearray()
        self._ended = False
        self._closed = False
        self._waiting: asyncio.Task[bytes | None] | None = None

    def close(self) -> None:
        """End the reader with BrokenPipeError, also while it waits. Called in the loop."""
        self._closed = True
        if self._waiting is not None:
            self._waiting.cancel()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer at the end only. ValueError for more than 16 MiB."""
        if not 0 <= size <= READ_LIMIT:
            raise ValueError("a part that is too large")
        while len(self._buffer) < size and not self._ended:
            chunk = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            self._ended = chunk is None
            self._buffer += chunk or b""
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def _next(self) -> bytes | None:
        if not self._closed:
            self._waiting = asyncio.ensure_future(self._chunk())
            await asyncio.wait({self._waiting})
            if not self._waiting.cancelled():
                return self._waiting.result()
        raise BrokenPipeError("nobody writes any more")

    async def _chunk(self) -> bytes | None:
        return await anext(self._chunks, None)
