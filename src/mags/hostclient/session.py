"""A streaming session with a VM: bytes both ways under credit, until the host says `exit`.

    async with await Session.open(client, host_id, Open(...)) as session:
        await session.write(b"...")
        async for frame in session:      # Data, in order
            ...
        session.end.exit_code

Neither side sends more than the other has granted, so a slow reader costs a bounded amount of memory. The bytes
of a frame count as read when the next one is asked for. Core NATS loses what is on its way when a connection breaks: a
session that lived through a reconnection is given up rather than continued with a hole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from types import TracebackType

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from mags.hostclient.client import HostClient
from mags.kit import tasks
from mags.protocol import messages, subjects
from mags.protocol.errors import STATUS, Problem
from mags.protocol.messages import (
    Alive,
    Archive,
    Credit,
    Data,
    Eof,
    Frame,
    Hangup,
    Open,
    Opened,
    SessionEnd,
    Signal,
    WindowSize,
)

CHUNK = 64 << 10
"""Bytes of input in one frame."""
ALIVE_EVERY = 15.0
GIVE_UP_AFTER = 60.0
"""Seconds of silence after which the other side is taken as gone."""


class Session:
    """Made by `open`. One task reads, any one task writes."""

    def __init__(self, client: HostClient, host_id: str, wish: Open | Archive) -> None:
        self.host_id, self.wish = host_id, wish
        self.opened = Opened()
        self.end: SessionEnd | None = None
        """Set once the host has said how it ended."""
        self._connection: Client = client.connection
        self._subscription: Subscription | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._frames: deque[Data] = deque()
        self._stirred = asyncio.Event()
        self._granted = asyncio.Event()
        self._credit = 0
        self._owed = 0
        self._last_read = 0
        self._problem: Problem | None = None
        self._heard = 0.0
        self._reconnects = 0
        self._closed = False

    @classmethod
    async def open(cls, client: HostClient, host_id: str, wish: Open | Archive, *, timeout: float = 60.0) -> Session:
        """Ask the host for it (a sleeping VM wakes). Problem when it refuses; nothing is left behind then."""
        session = cls(client, host_id, wish)
        await session._begin(client, timeout)
        return session

    async def _begin(self, client: HostClient, timeout: float) -> None:
        self._subscription = await self._connection.subscribe(
            subjects.session_out(self.wish.session_id), cb=self._on_message
        )
        self._heard = asyncio.get_running_loop().time()
        self._reconnects = self._connection.stats["reconnects"]
        try:
            verb = "open" if isinstance(self.wish, Open) else "archive"
            self.opened = await client.request(self.host_id, verb, self.wish, Opened, timeout=timeout)
        except BaseException as error:
            if not isinstance(error, Problem) or error.code == "outcome_unknown":
                with contextlib.suppress(Exception):
                    await self._send(Hangup())
            await self._unsubscribe()
            raise
        self._credit += self.opened.window
        self._granted.set()
        self._keeper = asyncio.create_task(self._keep_alive(), name=f"session-{self.wish.session_id}")

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- output ---------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Session:
        return self

    async def __anext__(self) -> Data:
        frame = await self.read()
        if frame is None:
            raise StopAsyncIteration
        return frame

    async def read(self) -> Data | None:
        """The next bytes of output; None after the last. Problem when the platform failed or the session broke."""
        await self._give_credit()
        while not self._frames:
            if self._problem is not None:
                raise self._problem
            if self.end is not None:
                if self.end.code is not None:
                    code = self.end.code if self.end.code in STATUS else "internal"
                    raise Problem(code, self.end.message or "The session ended with a problem.")
                return None
            if self._closed:
                return None
            self._stirred.clear()
            await self._stirred.wait()
        frame = self._frames.popleft()
        self._last_read = len(frame.data)
        return frame

    async def _give_credit(self) -> None:
        self._owed += self._last_read
        self._last_read = 0
        if self._owed >= max(1, self.wish.window // 4) and self.end is None and not self._closed:
            owed, self._owed = self._owed, 0
            await self._send(Credit(amount=owed))

    # --- input ----------------------------------------------------------------------------------------------------

    async def write(self, data: bytes | memoryview) -> bool:
        """Send input, waiting for credit. False when the session has ended meanwhile (the rest is dropped)."""
        view = memoryview(data)
        while view:
            if not await self._writable():
                return False
            size = min(len(view), CHUNK, self._credit)
            self._credit -= size
            await self._send(Data(stream=0, data=bytes(view[:size])))
            view = view[size:]
        return not self.ended

    async def _writable(self) -> bool:
        while self._credit <= 0:
            if self.ended:
                return False
            self._granted.clear()
            await self._granted.wait()
        return not self.ended

    @property
    def ended(self) -> bool:
        """No more input is taken."""
        return self.end is not None or self._problem is not None or self._closed

    async def eof(self) -> None:
        if not self.ended:
            await self._send(Eof())

    async def resize(self, rows: int, cols: int) -> None:
        if not self.ended:
            await self._send(WindowSize(rows=rows, cols=cols))

    async def signal(self, number: int) -> None:
        if not self.ended:
            await self._send(Signal(number=number))

    async def close(self) -> None:
        """Hang up on what still runs and forget the session. Idempotent."""
        if self._closed:
            return
        was_over = self.end is not None
        self._closed = True
        self._stirred.set()
        self._granted.set()
        if self._keeper is not None:
            await tasks.end((self._keeper,))
        if not was_over:
            with contextlib.suppress(Exception):
                await self._send(Hangup())
        await self._unsubscribe()

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _send(self, frame: Frame) -> None:
        await self._connection.publish(subjects.session_in(self.wish.session_id), messages.encode(frame))

    async def _unsubscribe(self) -> None:
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def _on_message(self, message: Msg) -> None:
        self._heard = asyncio.get_running_loop().time()
        if self._broken():
            return
        try:
            frame = messages.decode_frame(message.data)
        except (msgspec.DecodeError, msgspec.ValidationError):
            self._fail(Problem("internal", "The host sent a frame that can't be read."))
            return
        if isinstance(frame, Data):
            self._frames.append(frame)
            self._stirred.set()
        elif isinstance(frame, Credit):
            self._credit += max(0, frame.amount)
            self._granted.set()
        elif isinstance(frame, SessionEnd):
            self.end = frame
            self._stirred.set()
            self._granted.set()

    def _broken(self) -> bool:
        if self._connection.stats["reconnects"] != self._reconnects and self.end is None:
            self._fail(Problem("unavailable", "The connection to the message server broke; the session is lost."))
        return self._problem is not None

    def _fail(self, problem: Problem) -> None:
        if self._problem is None and self.end is None:
            self._problem = problem
        self._stirred.set()
        self._granted.set()

    async def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        sent = loop.time()
        while not self.ended:
            await asyncio.sleep(1.0)
            if self._broken():
                return
            if loop.time() - self._heard > GIVE_UP_AFTER:
                self._fail(Problem("outcome_unknown", f"Host {self.host_id} has gone silent; the session is lost."))
                return
            if loop.time() - sent >= ALIVE_EVERY:
                sent = loop.time()
                await self._send(Alive())
