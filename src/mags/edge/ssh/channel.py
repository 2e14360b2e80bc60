"""What both kinds of channel have in common: bytes between an SSH channel and a session with a host, at the pace of
the slower side, both ways.

    SSH client -> data_received -> inbox (the channel pauses when it is full) -> session.write (waits for credit)
    session.read (gives credit) -> channel.write (waits while the client does not read)  -> SSH client
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from typing import Any

from mags.edge.tasks import Tasks
from mags.hostclient import Session

INBOX = 256 << 10
"""Bytes from the client that wait for the host; the channel is paused above."""


class Flow(ABC):
    """Mixed into asyncssh's session classes. `_serve` is the subclass's: it opens a session and calls `_carry`."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._channel: Any = None
        self._inbox: deque[bytes] = deque()
        self._waiting = 0
        self._paused = False
        self._eof = False
        self._stirred = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def _serve(self) -> None: ...

    # --- called by asyncssh ---------------------------------------------------------------------------------------

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def session_started(self) -> None:
        self._task = self._tasks.start(self._serve())

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._inbox.append(data)
        self._waiting += len(data)
        if self._waiting > INBOX and not self._paused:
            self._paused = True
            self._channel.pause_reading()
        self._stirred.set()

    def eof_received(self) -> bool:
        self._eof = True
        self._stirred.set()
        return True  # the other direction stays open

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    # --- for subclasses -------------------------------------------------------------------------------------------

    async def _carry(self, session: Session) -> None:
        """Bytes both ways until the session ends. Problem when it broke."""
        inwards = asyncio.ensure_future(self._inwards(session))
        try:
            async for frame in session:
                self._write(frame.stream, frame.data)
                await self._writable.wait()
        finally:
            inwards.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await inwards

    def _write(self, stream: int, data: bytes) -> None:
        self._channel.write(data)

    async def _inwards(self, session: Session) -> None:
        while True:
            while self._inbox:
                data = self._inbox.popleft()
                self._waiting -= len(data)
                if not await session.write(data):
                    return
                if self._paused and self._waiting <= INBOX // 2:
                    self._paused = False
                    self._channel.resume_reading()
            if self._eof:
                await session.eof()
                return
            self._stirred.clear()
            await self._stirred.wait()
