r"""Streaming sessions: a process or a file in a VM, or a workspace's archive, joined to a client over NATS.

open --> opened --(frames both ways, each side sending only what the other has granted)--> SessionEnd
                 \-- hang-up, or nothing heard for 60 s: the process is killed
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from mags.host.machines import streams
from mags.host.machines.files import check_path
from mags.host.machines.machine import Machine
from mags.host.machines.problems import as_problem
from mags.host.machines.streams import Stream
from mags.protocol import subjects
from mags.protocol.errors import Problem
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
    decode_frame,
    encode,
)

log = logging.getLogger(__name__)

WINDOW = 1 << 20
"""Bytes of input that the client may have under way."""
CHUNK = 64 << 10
ALIVE_S = 15.0
SILENCE_S = 60.0

Opening = Callable[[AsyncIterator[bytes]], AbstractAsyncContextManager[Stream]]
"""Opens what a session is joined to, given the client's input."""


class Session:
    """One, from `open` to its end. `run` is its whole life; `opened` resolves when it has begun, or could not.

    alive: called every 15 s while it lasts. gone: what is said when it is cut off.
    """

    def __init__(
        self, client: Client, wish: Open | Archive, opening: Opening, *, alive: Callable[[], None], gone: str
    ) -> None:
        self.opened: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self._client, self._wish, self._opening = client, wish, opening
        self._alive, self._gone = alive, gone
        self._out = subjects.session_out(wish.session_id)
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._granted = WINDOW
        """Input that the client may still send."""
        self._credit = max(wish.window, 1)
        """Output that we may still send."""
        self._more_credit = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._heard = asyncio.get_running_loop().time()
        self._stream: Stream | None = None

    async def run(self) -> None:
        """Never raises but when cancelled; what goes wrong is told to the client."""
        subscription = await self._client.subscribe(subjects.session_in(self._wish.session_id), cb=self._on_message)
        end = SessionEnd(code="gone", message=self._gone)
        try:
            end = await self._whole()
        except Exception as error:
            problem = as_problem(error)
            if problem.code == "internal":
                log.exception("session %s failed", self._wish.session_id)
            if not self.opened.done():
                self.opened.set_exception(problem)
                return
            end = SessionEnd(code=problem.code, message=problem.message)
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()
            if not self.opened.done():
                self.opened.set_exception(Problem("gone", self._gone))
            elif not self.opened.exception() and not self._hung_up.is_set():
                with contextlib.suppress(Exception):
                    await self._send(end)

    async def _whole(self) -> SessionEnd:
        async with self._opening(self._chunks()) as stream:
            self._stream = stream
            self.opened.set_result(Opened(size=stream.size, mode=stream.mode, window=WINDOW))
            return await self._join(stream)

    async def _join(self, stream: Stream) -> SessionEnd:
        """Both ways until the stream ends, or the client does."""
        pump = asyncio.create_task(self._pump(stream))
        watch = asyncio.create_task(self._watch())
        feed = asyncio.create_task(self._feed(stream))
        try:
            # What breaks the way in breaks the way out too, except where the client's input itself is wrong.
            await asyncio.wait({pump, watch}, return_when=asyncio.FIRST_COMPLETED)
            return pump.result() if pump.done() else SessionEnd()
        finally:
            for task in (pump, watch, feed):
                task.cancel()
            await asyncio.gather(pump, watch, feed, return_exceptions=True)

    async def _pump(self, stream: Stream) -> SessionEnd:
        sent = 0
        while (piece := await stream.read()) is not None:
            number, data = piece
            at = 0
            while at < len(data):
                while self._credit <= 0:
                    self._more_credit.clear()
                    await self._more_credit.wait()
                part = data[at : at + min(CHUNK, self._credit)]
                self._credit -= len(part)
                await self._send(Data(stream=number, data=part))
                at += len(part)
            sent += at
            stream.taken()
        end = await stream.finish()
        end.bytes = end.bytes or sent
        return end

    async def _feed(self, stream: Stream) -> None:
        if not stream.takes_input:
            return
        async for chunk in self._chunks():
            await stream.write(chunk)
        await stream.close_input()

    async def _chunks(self) -> AsyncIterator[bytes]:
        """The client's input; a chunk is credited when the next one is asked for."""
        owed = 0
        while (chunk := await self._input.get()) is not None:
            yield chunk
            owed += len(chunk)
            if owed >= WINDOW // 8 or self._input.empty():
                self._granted += owed
                await self._send(Credit(amount=owed))
                owed = 0

    async def _watch(self) -> None:
        """Say that we are alive; ends when the client is not any more."""
        loop = asyncio.get_running_loop()
        while loop.time() - self._heard <= SILENCE_S:
            try:
                async with asyncio.timeout(ALIVE_S):
                    await self._hung_up.wait()
                return
            except TimeoutError:
                await self._send(Alive())
                self._alive()
        self._hung_up.set()

    async def _send(self, frame: Frame) -> None:
        await self._client.publish(self._out, encode(frame))

    async def _on_message(self, message: Msg) -> None:
        self._heard = asyncio.get_running_loop().time()
        try:
            frame = decode_frame(message.data)
        except (msgspec.DecodeError, msgspec.ValidationError):
            self._hung_up.set()
            return
        match frame:
            case Data(data=data):
                self._granted -= len(data)
                if self._granted < 0:
                    log.warning("session %s: the client sends more than it may", self._wish.session_id)
                    self._hung_up.set()
                elif data:
                    self._input.put_nowait(data)
            case Eof():
                self._input.put_nowait(None)
            case Credit(amount=amount):
                self._credit += max(0, amount)
                self._more_credit.set()
            case WindowSize(rows=rows, cols=cols):
                if self._stream is not None and 0 < rows < 1 << 16 and 0 < cols < 1 << 16:
                    await self._stream.resize(rows, cols)
            case Signal(number=number):
                if self._stream is not None and 1 <= number <= 64:
                    await self._stream.signal(number)
            case Hangup():
                self._hung_up.set()
            case Alive() | SessionEnd():
                pass


@asynccontextmanager
async def opening_in(machine: Machine, wish: Open, chunks: AsyncIterator[bytes]) -> AsyncGenerator[Stream, None]:
    """What is wished for in a VM, which wakes for it."""
    if wish.kind in ("read", "write"):
        check_path(wish.path or "")
    async with machine.use() as cell, streams.open_stream(cell.channel, wish, chunks) as stream:
        yield stream
