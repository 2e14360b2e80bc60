"""One process in a guest, seen from the host."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from mags.host.guest.errors import ChannelClosed
from mags.protocol.guest import RESULT, STDERR, STDOUT, Exit, FrameType, Offsets, Output, ProtocolError
from mags.protocol.guest.frames import END_OF_INPUT

if TYPE_CHECKING:
    from mags.host.guest.channel import Channel

STDIN_CHUNK = 32 * 1024
# A consumer that lags gets its output in pieces of this size instead of thousands of tiny ones.
MERGED = 64 * 1024
# With so many waiting, a piece joins the last one of its stream, whatever of other streams lies between. Who lags so
# far loses their order, and a guest that writes them in turns does not make the host keep an object for every byte.
MAX_PIECES = 1024


class Process:
    """Output arrives in order and without gaps, each stream numbered by byte offsets.

    The agent keeps what is not acknowledged (up to the window), so a host that is restarted attaches again at the
    offset up to which it had stored the output.
    """

    def __init__(self, channel: Channel, id: int, window: int, offsets: Offsets | None = None) -> None:
        start = offsets or Offsets()
        self.id = id
        self._channel = channel
        self._window = window
        self._received = {STDOUT: start.stdout, STDERR: start.stderr, RESULT: start.result}
        self._acknowledged = dict(self._received)
        self._acknowledgement_sent = dict(self._received)
        self._queue: deque[tuple[int, int, bytearray]] = deque()
        self._last: dict[int, bytearray] = {}
        """Of each stream the last piece that waits."""
        self._news = asyncio.Event()
        self._credit = asyncio.Event()
        self._stdin_sent = 0
        self._stdin_limit = 0
        self._stdin_closed = False
        self._exit: Exit | None = None
        self._lost: str | None = None

    # What the channel tells us

    def _take_output(self, output: Output) -> None:
        stream, size = output.stream, len(output.data)
        if self._exit is not None:
            raise ProtocolError("output after the exit")
        if not size or output.offset != self._received[stream]:
            raise ProtocolError(f"output at {output.offset} instead of {self._received[stream]}")
        self._received[stream] += size
        if self._received[stream] - self._acknowledgement_sent[stream] > self._window:
            raise ProtocolError("more output than the window allows")
        if self._queue:
            last_stream, _, last = self._queue[-1]
            if last_stream != stream and len(self._queue) >= MAX_PIECES and stream in self._last:
                last_stream, last = stream, self._last[stream]
            if last_stream == stream and len(last) + size <= MERGED:
                last += output.data
                self._news.set()
                return
        piece = bytearray(output.data)
        self._queue.append((stream, output.offset, piece))
        self._last[stream] = piece
        self._news.set()

    def _take_exit(self, exit: Exit) -> None:
        written = {STDOUT: exit.written.stdout, STDERR: exit.written.stderr, RESULT: exit.written.result}
        if self._exit is not None or written != self._received:
            raise ProtocolError("an exit that does not fit its output")
        self._exit = exit
        self._news.set()
        self._credit.set()

    def _take_credit(self, limit: int) -> None:
        if limit < self._stdin_limit:
            raise ProtocolError("credit for stdin was taken back")
        self._stdin_limit = limit
        self._credit.set()

    def _start_stdin(self, sent: int, limit: int) -> None:
        self._stdin_sent, self._stdin_limit = sent, limit

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._news.set()
        self._credit.set()

    # What its user does

    async def next_output(self) -> Output | None:
        """The next piece of output; None when all was delivered and the exit is known.

        Raises ChannelClosed when the guest is gone and what had arrived is used up.
        """
        while not self._queue:
            if self._exit is not None:
                return None
            if self._lost is not None:
                raise ChannelClosed(self._lost)
            self._news.clear()
            await self._news.wait()
        stream, offset, data = self._queue.popleft()
        if self._last[stream] is data:
            del self._last[stream]
        return Output(stream, offset, bytes(data))

    def acknowledge(self, stream: int, offset: int) -> None:
        """Everything of this stream below `offset` is safe: the agent may forget it and read on.

        Told to the agent in steps of an eighth of the window; `release` covers the rest.
        """
        if not self._acknowledged[stream] <= offset <= self._received[stream]:
            raise ValueError(f"cannot acknowledge {offset}: received up to {self._received[stream]}")
        self._acknowledged[stream] = offset
        if offset - self._acknowledgement_sent[stream] >= max(1, self._window // 8):
            self._acknowledgement_sent[stream] = offset
            payload = stream.to_bytes(1, "little") + offset.to_bytes(8, "little")
            self._channel._send(FrameType.ACK, self.id, payload)

    async def write_stdin(self, data: bytes) -> None:
        """Returns when everything is on its way; waits while the process does not read.

        What a process that has ended or closed its stdin does not read is dropped, as by a shell's pipe.
        """
        at = 0
        while at < len(data):
            if self._exit is not None:
                return
            if self._lost is not None:
                raise ChannelClosed(self._lost)
            if self._stdin_closed:
                raise ValueError("stdin is closed")
            room = min(self._stdin_limit - self._stdin_sent, STDIN_CHUNK, len(data) - at)
            if room <= 0:
                self._credit.clear()
                await self._credit.wait()
                continue
            self._send_stdin(data[at : at + room], 0)
            at += room
            await self._channel._drain()

    async def close_stdin(self) -> None:
        """End of input. On a terminal: hang-up of nothing, just no more input."""
        if not self._stdin_closed and self._exit is None and self._lost is None:
            self._stdin_closed = True
            self._send_stdin(b"", END_OF_INPUT)

    def _send_stdin(self, data: bytes, flags: int) -> None:
        payload = self._stdin_sent.to_bytes(8, "little") + data
        self._stdin_sent += len(data)
        self._channel._send(FrameType.STDIN, self.id, payload, flags)

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size; the foreground processes get SIGWINCH."""
        payload = rows.to_bytes(2, "little") + columns.to_bytes(2, "little")
        self._channel._send(FrameType.RESIZE, self.id, payload)

    async def signal(self, number: int) -> None:
        """To the process group; on a terminal to its foreground group."""
        if not 1 <= number <= 64:
            raise ValueError(f"no such signal: {number}")
        self._channel._send(FrameType.SIGNAL, self.id, number.to_bytes(1, "little"))

    async def wait(self) -> Exit:
        """How it ended. Output must be taken (and acknowledged) meanwhile by somebody, or it never ends."""
        while self._exit is None:
            if self._lost is not None:
                raise ChannelClosed(self._lost)
            self._news.clear()
            await self._news.wait()
        return self._exit

    @property
    def exit(self) -> Exit | None:
        """How it ended, if that is known yet."""
        return self._exit

    @property
    def received(self) -> Offsets:
        """How much output has arrived on each stream."""
        return Offsets(self._received[STDOUT], self._received[STDERR], self._received[RESULT])

    async def release(self) -> None:
        """The exit is stored: the agent forgets this process. One that still runs is killed first."""
        self._channel._release(self.id)


__all__ = ["Process"]
