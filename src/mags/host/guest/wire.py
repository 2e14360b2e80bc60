"""The bytes of a guest's channel: frames in, at a pace; bytes out, with flow control.

A guest may send the smallest frames as fast as it can, 16,000 in one read. They are taken in batches, with a rest after
each: so no guest keeps the other VMs of the host waiting, or the host's processor busy. Who sends little at a time, or
large frames, never notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

from mags.protocol.guest import Decoder, Frame, ProtocolError

BATCH = 128
"""Frames that are taken at once: less than half a millisecond's work."""
REST_S = 0.01


class Wire(asyncio.Protocol):
    """One connection. take: called with each frame; ProtocolError ends the connection. lost: called with the reason
    when it has ended by whatever but `close`."""

    transport: asyncio.Transport

    def __init__(self, take: Callable[[Frame], None], lost: Callable[[str], None]) -> None:
        self._take, self._lost = take, lost
        self._decoder = Decoder(0)
        self._closed = False
        self._rest: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    async def connect(self, path: Path) -> None:
        """OSError where nobody listens."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, str(path))

    def expect(self, nonce: int) -> None:
        """The next frame is the HELLO with this nonce; what comes before is skipped."""
        self._decoder.expect(nonce)

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    @property
    def unsent(self) -> int:
        """Bytes that the other side has not read yet."""
        return self.transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Wait until there is little unsent."""
        await self._writable.wait()

    def close(self) -> None:
        """Harmless if repeated."""
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface of asyncio.Transport without being one.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._receive(data):
            self.transport.pause_reading()

    def _receive(self, data: bytes) -> bool:
        """Whether there may be more frames already: they come after a rest."""
        if self._closed:
            return False
        try:
            frames = self._decoder.feed(data, BATCH)
            for frame in frames:
                self._take(frame)
        except ProtocolError as error:
            self._lost(f"the guest broke the protocol: {error}")
        if self._closed or len(frames) < BATCH:
            return False
        self._rest = asyncio.get_running_loop().call_later(REST_S, self._go_on)
        return True

    def _go_on(self) -> None:
        if not self._receive(b"") and not self._closed and not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        self._lost("the virtual machine has ended")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
