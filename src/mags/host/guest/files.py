"""Files in a guest: each operation is a builtin of the agent, run in a child confined to the guest's root."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from mags.host.guest.errors import GuestError
from mags.protocol.guest import RESULT, Builtin, Entry, Exec
from mags.protocol.guest.answers import Result, decode_entries, decode_results

if TYPE_CHECKING:
    from mags.host.guest.channel import Channel
    from mags.host.guest.process import Process

# A file operation that shows no progress for this long has failed (say, the server of /jfs is gone).
STALL_S = 60.0
# Of a listing, names and all; some 100,000 entries.
MAX_LISTING = 16 * 1024 * 1024
DATA_WINDOW = 1024 * 1024
# Records of one operation: its result, and perhaps an error that came later.
MAX_RESULTS = 8


class Operation:
    """A running builtin: its data is taken piece by piece, its result records are collected on the way."""

    def __init__(self, channel: Channel, process: Process) -> None:
        self.process = process
        self.results: list[Result] = []
        self.channel = channel
        self._records = bytearray()

    async def piece(self) -> bytes | None:
        """Some data (empty when only a result came); None at the end."""
        async with asyncio.timeout(STALL_S):
            output = await self.process.next_output()
        if output is None:
            return None
        self.process.acknowledge(output.stream, output.offset + len(output.data))
        if output.stream != RESULT:
            return output.data
        self._records += output.data
        results, taken = self.channel._decoded(decode_results, bytes(self._records))
        del self._records[:taken]
        self.results += results
        if len(self.results) > MAX_RESULTS:
            raise self.channel._broken("more results than an operation has")
        return b""

    async def finish(self) -> Result:
        """Throw remaining data away; the last result. Raises GuestError if that is an error."""
        while await self.piece() is not None:
            pass
        self.check()
        if not self.results:
            raise GuestError(errno.EIO, "the operation ended without a result")
        return self.results[-1]

    def check(self) -> None:
        """Raise the first error among the results so far."""
        for result in self.results:
            if result.errno:
                raise GuestError(result.errno, result.message)
        exit = self.process.exit
        if exit is not None and exit.error is not None:
            raise GuestError(exit.error, exit.message)

    def entry(self, data: bytes) -> Entry:
        """The single entry that a result carries."""
        entries, taken = self.channel._decoded(decode_entries, data)
        if len(entries) != 1 or taken != len(data):
            raise self.channel._broken("a result without its entry")
        return entries[0]

    async def aclose(self) -> None:
        if not self.channel.closed.done():
            await self.process.release()

    async def __aenter__(self) -> Operation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _begin(
    channel: Channel, builtin: Builtin, *arguments: str, stdin: bool = False, user: str | None = None
) -> Operation:
    wish = Exec(builtin=builtin, argv=arguments, stdin=stdin, user=user or "", window=DATA_WINDOW)
    return Operation(channel, await channel.exec(wish))


class FileReader:
    """A file being read: iterate over its bytes, and close it (or use it as a context manager)."""

    def __init__(self, operation: Operation, entry: Entry, first: bytes) -> None:
        self.entry = entry
        self.mode = entry.mode
        self.size = entry.size
        self._operation = operation
        self._first = first

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            piece: bytes | None = self._first
            while piece is not None:
                if piece:
                    yield piece
                piece = await self._operation.piece()
            self._operation.check()
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        await self._operation.aclose()

    async def __aenter__(self) -> FileReader:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def open_reader(channel: Channel, path: str, offset: int, limit: int | None) -> FileReader:
    arguments = (path, str(offset), str(-1 if limit is None else limit))
    operation = await _begin(channel, Builtin.FILE_READ, *arguments)
    try:
        first = b""
        while not operation.results:
            piece = await operation.piece()
            if piece is None:
                operation.check()
                raise GuestError(errno.EIO, "the file was not opened")
            first += piece
            if len(first) > DATA_WINDOW:
                raise channel._broken("the data of a file before its result")
        operation.check()
        return FileReader(operation, operation.entry(operation.results[0].data), first)
    except BaseException:
        await operation.aclose()
        raise


async def write(
    channel: Channel,
    path: str,
    chunks: AsyncIterator[bytes],
    mode: int | None,
    parents: bool,
    user: str | None,
) -> int:
    """Bytes written. The file appears under its name only when complete."""
    flags = "p" if parents else ""
    arguments = (path, "" if mode is None else f"{mode:o}", flags)
    async with await _begin(channel, Builtin.FILE_WRITE, *arguments, stdin=True, user=user) as operation:
        total = 0
        async for chunk in chunks:
            async with asyncio.timeout(STALL_S):
                await operation.process.write_stdin(chunk)
            total += len(chunk)
            if operation.process.exit is not None:
                break  # it has failed: the rest would be dropped
        # Only now the file gets its name: a host that dies before this leaves nothing.
        await operation.process.close_stdin()
        await operation.finish()
        return total


async def listing(channel: Channel, path: str) -> list[Entry]:
    async with await _begin(channel, Builtin.FILE_LIST, path) as operation:
        entries: list[Entry] = []
        buffer = bytearray()
        size = 0
        while (piece := await operation.piece()) is not None:
            size += len(piece)
            if size > MAX_LISTING:
                raise GuestError(errno.E2BIG, f"{path} has too many entries to list")
            buffer += piece
            some, taken = channel._decoded(decode_entries, bytes(buffer))
            del buffer[:taken]
            entries += some
        operation.check()
        return entries


async def stat(channel: Channel, path: str) -> Entry:
    """Of a symbolic link: the link itself."""
    async with await _begin(channel, Builtin.FILE_STAT, path) as operation:
        return operation.entry((await operation.finish()).data)


async def remove(channel: Channel, path: str, recursive: bool) -> None:
    await _simple(channel, Builtin.FILE_REMOVE, (path, "r" if recursive else ""))


async def make_directory(channel: Channel, path: str, mode: int, parents: bool) -> None:
    await _simple(channel, Builtin.FILE_MKDIR, (path, f"{mode:o}", "p" if parents else ""))


async def rename(channel: Channel, source: str, target: str) -> None:
    await _simple(channel, Builtin.FILE_RENAME, (source, target))


async def _simple(channel: Channel, builtin: Builtin, arguments: Sequence[str]) -> None:
    async with await _begin(channel, builtin, *arguments) as operation:
        await operation.finish()
