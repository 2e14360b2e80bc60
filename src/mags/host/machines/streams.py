"""What a session is joined to in the guest, as one thing: a process, a connection, a file read or written."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from mags.host.guest import Builtin, Channel, ChannelClosed, Exec, FileReader, GuestError, Process, Terminal
from mags.host.machines.execs import check_started, last_words, words
from mags.protocol.errors import Problem
from mags.protocol.guest import RESULT, STDERR, Output
from mags.protocol.guest.answers import decode_results
from mags.protocol.guest.frames import ProtocolError
from mags.protocol.messages import Open, SessionEnd

WINDOW = 512 << 10
CONNECT_S = 60.0
"""A connection that is neither made nor refused after this long has failed."""


class Stream(Protocol):
    """`read` until it answers None, calling `taken` when a piece has gone; then `finish`. Raises Problem, GuestError,
    ChannelClosed."""

    size: int | None
    mode: int | None
    takes_input: bool

    async def read(self) -> tuple[int, bytes] | None: ...
    def taken(self) -> None: ...
    async def write(self, data: bytes) -> None: ...
    async def close_input(self) -> None: ...
    async def finish(self) -> SessionEnd: ...
    async def resize(self, rows: int, columns: int) -> None: ...
    async def signal(self, number: int) -> None: ...


class ProcessStream:
    """A process: a command, the SFTP server, a connection."""

    size: int | None = None
    mode: int | None = None
    takes_input = True

    def __init__(self, process: Process, kind: str) -> None:
        self._process, self._kind = process, kind
        self._last: tuple[int, int] | None = None
        self._early: deque[Output] = deque()
        self._results = bytearray()
        self._result_known = False
        self._ended = False

    async def connected(self) -> None:
        """Wait until a builtin has said that it could do its work. GuestError when it could not."""
        async with asyncio.timeout(CONNECT_S):
            while not self._result_known and (piece := await self._process.next_output()) is not None:
                if piece.stream == RESULT:
                    self._take_result(piece)
                else:
                    self._early.append(piece)

    async def read(self) -> tuple[int, bytes] | None:
        while (piece := self._early.popleft() if self._early else await self._process.next_output()) is not None:
            if piece.stream != RESULT:
                self._last = piece.stream, piece.offset + len(piece.data)
                return piece.stream, piece.data
            self._take_result(piece)
        if self._kind == "exec" and not self._ended:
            self._ended = True
            exit = await self._process.wait()
            check_started(exit)
            if told := last_words(exit):
                return STDERR, told
        return None

    def taken(self) -> None:
        if self._last is not None:
            with contextlib.suppress(ChannelClosed):
                self._process.acknowledge(*self._last)
            self._last = None

    async def write(self, data: bytes) -> None:
        await self._process.write_stdin(data)

    async def close_input(self) -> None:
        await self._process.close_stdin()

    async def finish(self) -> SessionEnd:
        exit = await self._process.wait()
        if self._kind != "exec" and exit.error is not None:
            raise GuestError(exit.error, exit.message)
        return SessionEnd(exit_code=exit.exit_code)

    async def resize(self, rows: int, columns: int) -> None:
        with contextlib.suppress(ChannelClosed):
            await self._process.resize(rows, columns)

    async def signal(self, number: int) -> None:
        with contextlib.suppress(ChannelClosed):
            await self._process.signal(number)

    def _take_result(self, piece: Output) -> None:
        """A builtin says on its own stream how it went."""
        self._process.acknowledge(RESULT, piece.offset + len(piece.data))
        self._results += piece.data
        try:
            results, taken = decode_results(bytes(self._results))
        except ProtocolError as error:
            raise Problem("guest_failed", f"The VM broke the protocol: {error}.") from error
        del self._results[:taken]
        for result in results:
            self._result_known = True
            if result.errno:
                raise GuestError(result.errno, result.message)


class PlainStream:
    """Bytes one way, from something that is no process."""

    size: int | None = None
    mode: int | None = None
    takes_input = False

    async def read(self) -> tuple[int, bytes] | None:
        return None

    def taken(self) -> None:
        pass

    async def write(self, data: bytes) -> None:
        pass

    async def close_input(self) -> None:
        pass

    async def finish(self) -> SessionEnd:
        return SessionEnd(exit_code=0)

    async def resize(self, rows: int, columns: int) -> None:
        pass

    async def signal(self, number: int) -> None:
        pass


class ReadStream(PlainStream):
    """The bytes of a file."""

    def __init__(self, reader: FileReader) -> None:
        self.size, self.mode = reader.size, reader.mode & 0o7777
        self._pieces = aiter(reader)

    async def read(self) -> tuple[int, bytes] | None:
        async for piece in self._pieces:
            return 1, piece
        return None


class WriteStream(PlainStream):
    """A file being written: its end is the stream's end."""

    def __init__(self, written: asyncio.Task[int]) -> None:
        self._written = written

    async def finish(self) -> SessionEnd:
        return SessionEnd(exit_code=0, bytes=await self._written)


@asynccontextmanager
async def open_stream(channel: Channel, wish: Open, chunks: AsyncIterator[bytes]) -> AsyncGenerator[Stream, None]:
    """Begin what is wished; when the context ends, it has ended too. `chunks` is the input of a `write`."""
    match wish.kind:
        case "read":
            async with await channel.read_file(wish.path or "", offset=wish.offset) as reader:
                yield ReadStream(reader)
        case "write":
            writing = asyncio.create_task(channel.write_file(wish.path or "", chunks, mode=wish.mode))
            try:
                yield WriteStream(writing)
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
        case _:
            process = await channel.exec(_exec(wish))
            try:
                stream = ProcessStream(process, wish.kind)
                if wish.kind == "connect":
                    await stream.connected()
                yield stream
            finally:
                await process.release()


def _exec(wish: Open) -> Exec:
    timeout_ms = 0 if wish.timeout_s is None else max(1, round(wish.timeout_s * 1000))
    match wish.kind:
        case "sftp":
            return Exec(builtin=Builtin.SFTP, user=wish.user or "", stdin=True, window=WINDOW)
        case "connect":
            if wish.port is None or not 0 < wish.port < 1 << 16:
                raise Problem("invalid", "A port is a number from 1 to 65535.")
            # An empty name is the guest itself, on whichever of its addresses somebody listens.
            host = "" if wish.host in ("127.0.0.1", "localhost") else wish.host
            patience_ms = round((wish.timeout_s or 0) * 1000)
            return Exec(
                builtin=Builtin.CONNECT, argv=(host, str(wish.port), str(patience_ms)), stdin=True, window=WINDOW
            )
        case _:
            environment = dict(wish.environment)
            terminal = None
            if wish.pty is not None:
                terminal = Terminal(min(max(wish.pty.rows, 1), 65535), min(max(wish.pty.cols, 1), 65535))
                environment.setdefault("TERM", wish.pty.term)
            return Exec(
                argv=words(wish.command),
                environment=environment,
                cwd=wish.workdir or "",
                user=wish.user or "",
                terminal=terminal,
                stdin=True,
                timeout_ms=timeout_ms,
                window=WINDOW,
            )
