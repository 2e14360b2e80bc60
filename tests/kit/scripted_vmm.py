"""A hypervisor whose guests are a few lines of Python: for what a real guest can't be made to do, and for numbers.

A guest confirms every configuration. Its script's first word says how it behaves: see `Guest.run`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from mags.host.vmm.driver import Applied, DiskChanges, ProcessGroup, TapSource, Vmm
from mags.host.vmm.spec import VmSpec, WorkDisk
from mags.host.vmm.stall import Stall
from mags.protocol.guest import FrameType
from mags.protocol.guest.fields import FieldWriter, read_fields
from mags.protocol.guest.frames import HEADER, MORE, encode_frame
from mags.protocol.guest.wishes import ExecField, Part

MAGIC_AT = b"MG"
ANSWERS: dict[int, int] = {
    FrameType.PING: 16,
    FrameType.STATS: 96,
    FrameType.FREEZE: 0,
    FrameType.THAW: 0,
    FrameType.FLUSH: 0,
}
"""Requests that are answered with so many zeros."""


class Guest:
    """One connection to the agent. `odd`: frames that it does not answer but behaves so (see `run`)."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, odd: Mapping[FrameType, bytes]
    ) -> None:
        self._reader, self._writer, self._odd = reader, writer, odd
        self._parts: dict[tuple[int, int], bytearray] = {}

    async def serve(self) -> None:
        try:
            await self._reader.readuntil(MAGIC_AT)
            head = MAGIC_AT
            while True:
                head += await self._reader.readexactly(HEADER.size - len(head))
                _, kind, flags, id, length, _ = HEADER.unpack(head)
                payload = await self._reader.readexactly(length)
                message = self._parts.setdefault((kind, id), bytearray())
                message += payload
                if not flags & MORE:
                    del self._parts[kind, id]
                    await self._take(kind, id, bytes(message))
                head = b""
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writer.close()

    async def _take(self, kind: int, id: int, message: bytes) -> None:
        if kind in self._odd:
            await self.run(id, [self._odd[FrameType(kind)]])
        elif kind == FrameType.RESET:
            self.send(FrameType.HELLO, 0, message[2:10] + b"\x01\0")
        elif kind == FrameType.CONFIGURE:
            answer = FieldWriter()
            for part in {tag for tag, _ in read_fields(message)}:
                answer.add(Part(part), b"\0\0")
            self.send(FrameType.CONFIGURED, id, answer.getvalue())
        elif kind == FrameType.EXEC:
            fields = dict(read_fields(message))
            await self.run(id, fields.get(ExecField.SCRIPT, b"").split(b" "))
        elif kind in ANSWERS:
            self.send(FrameType.REPLY, id, bytes(ANSWERS[kind]))

    def send(self, kind: int, id: int, payload: bytes = b"") -> None:
        self._writer.write(encode_frame(kind, id, payload))

    def output(self, id: int, data: bytes, *, stream: int = 1, offset: int = 0) -> None:
        self.send(FrameType.OUTPUT, id, bytes((stream,)) + offset.to_bytes(8, "little") + data)

    def exit(self, id: int, *, code: int = 0, written: int = 0) -> None:
        head = bytes((0, 0, 0, 0)) + code.to_bytes(4, "little") + bytes(24)
        self.send(FrameType.EXIT, id, head + written.to_bytes(8, "little") + bytes(16))

    async def run(self, id: int, words: list[bytes]) -> None:
        match words[0]:
            case b"echo":
                data = b" ".join(words[1:]) + b"\n"
                self.output(id, data)
                self.exit(id, written=len(data))
            case b"wait":
                self.output(id, b"waiting\n")
            case b"garbage":
                self._writer.write(bytes(range(256)) * 16)
            case b"huge":
                self._writer.write(HEADER.pack(b"MG", FrameType.OUTPUT, 0, id, 1 << 31, 0))
            case b"hole":
                self.output(id, b"later", offset=10)
            case b"flood":
                for number in range(64):
                    self.output(id, bytes(60000), offset=number * 60000)
            case b"stranger":
                self.output(id + 1000, b"who?")
            case b"lie":
                self.output(id, b"some\n")
                self.exit(id, written=4)
            case b"close":
                self._writer.close()
            case b"mute":
                while await self._reader.read(1 << 16):
                    pass
            case _:
                self.exit(id)


class ScriptedVm:
    def __init__(self, spec: VmSpec, directory: Path, guests: asyncio.Server) -> None:
        self.spec, self.directory = spec, directory
        self.pid = 0
        self.disk_bytes: int | None = None
        self.channel_path = directory / "agent"
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._guests = guests
        self.stall = Stall()
        self.lines: list[asyncio.StreamWriter] = []
        """The connections to the agent."""

    async def pause(self) -> None: ...

    async def resume(self) -> None:
        (self.directory / "asleep").unlink(missing_ok=True)

    async def listen(self) -> None: ...

    async def copy_base(self) -> None: ...

    async def save(self) -> None:
        (self.directory / "asleep").touch()
        await self.kill()

    def changes(self) -> DiskChanges:
        raise NotImplementedError

    async def resize_disk(self, size: int) -> None:
        self.disk_bytes = size

    async def kill(self) -> None:
        self._guests.close()
        if not self.died.done():
            self.died.set_result("killed")

    async def destroy(self) -> None:
        await self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def release(self) -> None:
        self._guests.close()

    async def hang_up(self) -> None:
        """The guest's channel ends."""
        self._guests.close()
        for writer in self.lines:
            writer.close()

    async def memory_mb(self) -> float:
        return 0.0

    async def console(self) -> str:
        return ""


class ScriptedVmm:
    """Counts what it makes. `before` is awaited in each clone, `on_wake` whenever one is to wake."""

    accelerator = "tcg"
    version = "scripted"

    def __init__(self, before: Callable[[VmSpec], Awaitable[None]] | None = None) -> None:
        self.made: list[ScriptedVm] = []
        self._before = before
        self.on_wake: Callable[[VmSpec], Awaitable[None]] | None = None
        self.odd: dict[FrameType, bytes] = {}
        """How all guests behave (see `Guest`)."""

    async def _make(self, spec: VmSpec, directory: Path) -> ScriptedVm:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            vm.lines.append(writer)
            await Guest(reader, writer, self.odd).serve()

        (directory / "agent").unlink(missing_ok=True)
        guests = await asyncio.start_unix_server(serve, directory / "agent")
        vm = ScriptedVm(spec, directory, guests)
        self.made.append(vm)
        return vm

    async def clone(
        self,
        spec: VmSpec,
        directory: Path,
        *,
        namespace: TapSource | None,
        uid: int,
        work_disk: WorkDisk | None = None,
        group: ProcessGroup | None = None,
    ) -> ScriptedVm:
        if self._before is not None:
            await self._before(spec)
        directory.mkdir(parents=True)
        return await self._make(spec, directory)

    async def adopt(self, directory: Path) -> ScriptedVm | None:
        return None

    def asleep(self, directory: Path) -> bool:
        return (directory / "asleep").exists()

    async def flush(self, directory: Path) -> None: ...

    async def wake(
        self,
        spec: VmSpec,
        directory: Path,
        *,
        namespace: TapSource | None,
        uid: int,
        work_disk: WorkDisk | None = None,
        group: ProcessGroup | None = None,
    ) -> ScriptedVm:
        if self.on_wake is not None:
            await self.on_wake(spec)
        return await self._make(spec, directory)

    restart = wake

    def salvage(self, directory: Path, target: Path, size: int) -> Applied:
        raise NotImplementedError

    async def warm(self, spec: VmSpec) -> None: ...

    def ready(self, spec: VmSpec) -> bool:
        return True


_: type[Vmm] = ScriptedVmm
