"""A real QEMU with a work disk and no guest: its monitor writes to the disk as a guest would."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mags.host.vmm.qemu import overlay
from mags.host.vmm.qemu.qmp import Qmp

PROGRAM = "qemu-system-x86_64"


class IdleQemu:
    """Looks like a QemuVm to what needs a monitor and a directory."""

    def __init__(self, directory: Path, qmp: Qmp, process: asyncio.subprocess.Process) -> None:
        self.directory, self.qmp, self.process = directory, qmp, process

    async def pass_file(self, path: Path, flags: int) -> str:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        try:
            return f"/dev/fdset/{(await self.qmp.execute('add-fd', fds=[descriptor]))['fdset-id']}"
        finally:
            os.close(descriptor)

    async def io(self, words: str) -> str:
        """One command of qemu-io on the work disk, such as "write -P 7 0 64k"."""
        return str(await self.qmp.execute("human-monitor-command", command_line=f'qemu-io work "{words}"'))

    async def write(self, byte: int, offset: int, length: int) -> None:
        said = await self.io(f"write -P {byte} {offset} {length}")
        assert not said, said  # what it did goes to stdout, what it could not here

    async def write_bytes(self, data: bytes, offset: int) -> None:
        source = self.directory / "bytes"
        source.write_bytes(data)
        said = await self.io(f"write -s {source} {offset} {len(data)}")
        assert not said, said

    async def again(self) -> IdleQemu:
        """The same QEMU through a new monitor connection, as a new host program has it."""
        await self.qmp.aclose()
        return IdleQemu(self.directory, await Qmp.connect(self.directory / "qmp"), self.process)


@asynccontextmanager
async def idle_qemu(directory: Path, base: Path, size: int) -> AsyncIterator[IdleQemu]:
    """Started with an overlay over `base`; killed at the end."""
    disk = directory / "disk.qcow2"
    overlay.create(disk, base, size, owner=0)
    raw = {"driver": "file", "filename": str(base), "locking": "off", "read-only": True}
    file: dict[str, object] = {
        "driver": "file",
        "node-name": "workfile",
        "filename": str(disk),
        "locking": "off",
        "discard": "unmap",
    }
    nodes: list[dict[str, object]] = [
        {"driver": "raw", "node-name": "workbase", "read-only": True, "file": raw},
        file,
        {"driver": "qcow2", "node-name": "work", "file": "workfile", "backing": "workbase"},
    ]
    nodes[-1] |= {"discard": "unmap", "detect-zeroes": "unmap"}
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.bind(str(directory / "qmp"))
        monitor.listen(8)
        words = ["-M", "microvm", "-nodefaults", "-no-user-config", "-display", "none", "-S"]
        words += ["-chardev", f"socket,id=m,fd={monitor.fileno()},server=on,wait=off", "-mon", "chardev=m,mode=control"]
        for node in nodes:
            words += ["-blockdev", json.dumps(node)]
        words += ["-device", "virtio-blk-device,drive=work,share-rw=on"]
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=(monitor.fileno(),),
        )
    qemu = IdleQemu(directory, await Qmp.connect(directory / "qmp"), process)
    try:
        yield qemu
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await qemu.qmp.aclose()
