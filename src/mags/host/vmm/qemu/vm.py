"""One running QEMU as a Vm.

running <--pause/resume--> paused;   running <--(its disk fails)/(it works again)--> stalled (see recovery)
any --(guest powers off | QEMU ends | kill)--> died
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from contextlib import suppress
from pathlib import Path

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu import process as processes
from mags.host.vmm.qemu import snapshot
from mags.host.vmm.qemu.answers import Chardev, FdSet
from mags.host.vmm.qemu.blocksync import BlockSync
from mags.host.vmm.qemu.machine import CHANNEL, CONSOLE_BYTES, WORK_NODE
from mags.host.vmm.qemu.process import Process
from mags.host.vmm.qemu.qmp import Qmp
from mags.host.vmm.qemu.recovery import Recovery
from mags.host.vmm.spec import VmSpec
from mags.host.vmm.stall import Stall

log = logging.getLogger(__name__)

CONSOLE_LOG = "console.log"
LEAVE_TIMEOUT = 10.0
"""Seconds for QEMU to see that the channel was closed: less than 1 ms on an idle host."""
LISTEN_S = 5.0
"""Within which a hypervisor that is well answers, also on a busy host."""
GUEST_ENDED = "The guest powered off, rebooted or crashed."


class QemuVm:
    """See driver.Vm. `qmp` is for the other files of this package."""

    def __init__(
        self,
        spec: VmSpec,
        directory: Path,
        process: Process,
        qmp: Qmp,
        *,
        base: Path | None = None,
        origin: tuple[str, str] = ("", ""),
        dormant: bool = False,
    ) -> None:
        """base: the raw file under its overlay. origin: QEMU's version and the accelerator; a saved VM wakes only
        where both are the same. dormant: it counts as asleep until it is told to run."""
        self.spec, self.directory, self.process, self.qmp, self.origin = spec, directory, process, qmp, origin
        self._dormant = dormant
        self.disk_bytes: int | None = None
        self.base_copied = False
        """Whether what its memory started from lies in its directory (see snapshot)."""
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.stall = Stall()
        self._recovery = Recovery(qmp, base, self.stall)
        self._watcher = asyncio.create_task(self._watch(), name=f"vm-{process.pid}")
        self._recovering = asyncio.create_task(self._recovery.run(), name=f"vm-{process.pid}-disk")

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def channel_path(self) -> Path:
        return self.directory / processes.AGENT

    async def pause(self) -> None:
        await self.process.unless_dead(self.qmp.execute("stop"))

    async def resume(self) -> None:
        if self._dormant:
            # From here on the image must not be used again: the guest is about to change its disk.
            try:
                await snapshot.forget(self.directory)
            except OSError as error:
                raise VmmError(f"What was saved of the VM can't be removed now: {error}") from error
            self._dormant = False
        await self.process.unless_dead(self.qmp.execute("cont"))

    async def copy_base(self) -> None:
        await snapshot.copy_base(self)

    async def save(self) -> None:
        async with self._recovery.held():
            await snapshot.save(self)

    async def left_alone(self) -> None:
        """Wait until QEMU has seen that nobody is on the guest's channel; VmmError if somebody stays.

        While the VM runs: the port of one that stands still is not told that a host has gone. What that host did not
        read would be saved half written, and after the VM has woken keep back all that the guest writes.
        """
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT):
                while not await self._disconnected():
                    await asyncio.sleep(0.005)
        except TimeoutError as error:
            raise VmmError("The VM's channel is still in use.") from error

    async def _disconnected(self) -> bool:
        every = await self.process.unless_dead(self.qmp.ask("query-chardev", list[Chardev]))
        return any(one.label == CHANNEL and one.filename.startswith("disconnected:") for one in every)

    async def listen(self) -> None:
        with suppress(VmmError):
            await self.qmp.execute("query-status", timeout=LISTEN_S)

    def changes(self) -> BlockSync:
        return BlockSync(self)

    async def resize_disk(self, size: int) -> None:
        await self.process.unless_dead(self.qmp.execute("block_resize", node_name=WORK_NODE, size=size))
        self.disk_bytes = size

    async def kill(self) -> None:
        await self.process.kill()
        await asyncio.shield(self.died)

    async def destroy(self) -> None:
        await self.kill()
        await processes.remove_tree(self.directory)

    async def release(self) -> None:
        """Let go of a VM that goes on without us, for another host program to adopt."""
        for task in (self._watcher, self._recovering):
            task.cancel()
        await asyncio.gather(self._watcher, self._recovering, return_exceptions=True)
        await self.qmp.aclose()
        self.process.release()

    async def memory_mb(self) -> float:
        return await asyncio.to_thread(private_memory_mb, self.pid)

    async def console(self) -> str:
        """While it runs from QEMU, afterwards from the file that `_watch` has left."""
        if not self.died.done():
            try:
                return await self._read_console()
            except VmmError:
                pass
        try:
            return (self.directory / CONSOLE_LOG).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    async def pass_file(self, path: Path, flags: int) -> str:
        return await pass_file(self.qmp, path, flags)

    async def _watch(self) -> None:
        """Turn what ends a VM, whatever it is, into `died`."""
        reason = None
        with self.qmp.events("SHUTDOWN") as events:
            shutdown = asyncio.ensure_future(anext(events))
            try:
                await asyncio.wait((shutdown, self.process.died), return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                shutdown.cancel()
                raise
            if shutdown.done() and shutdown.exception() is None:
                reason = GUEST_ENDED
                await self._keep_console()
            shutdown.cancel()
            await asyncio.gather(shutdown, return_exceptions=True)
        # Also when the monitor breaks while QEMU lives: a VM that nobody can control must not go on.
        while not self.process.died.done():
            try:
                await self.process.kill()
            except VmmError as error:
                log.warning("VM %d: %s", self.pid, error)
        self._recovering.cancel()
        await asyncio.gather(self._recovering, return_exceptions=True)
        await self.qmp.aclose()
        self.died.set_result(reason or self.process.died.result())

    async def _keep_console(self) -> None:
        try:
            (self.directory / CONSOLE_LOG).write_text(await self._read_console())
        except (VmmError, OSError):
            pass

    async def _read_console(self) -> str:
        return await read_console(self.qmp)


async def pass_file(qmp: Qmp, path: Path, flags: int) -> str:
    """Open a file for QEMU, which could not itself: the name under which it finds it (`/dev/fdset/N`)."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        return f"/dev/fdset/{(await qmp.ask('add-fd', FdSet, fds=[descriptor])).id}"
    finally:
        os.close(descriptor)


async def read_console(qmp: Qmp) -> str:
    """What the guest wrote to its console since this was last asked, at most the last CONSOLE_BYTES. VmmError."""
    # In base64, since a guest need not write UTF-8.
    said = await qmp.execute("ringbuf-read", timeout=5, device="console", size=CONSOLE_BYTES, format="base64")
    try:
        return base64.b64decode(said)[-CONSOLE_BYTES:].decode(errors="replace")
    except (TypeError, ValueError) as error:
        raise VmmError(f"QEMU's copy of the console is none: {error}") from error


def private_memory_mb(pid: int) -> float:
    """MiB of pages that belong to this process alone; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_Dirty")) / 1024
