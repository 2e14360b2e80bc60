"""What one VM occupies of the host: directory, user, network, control group, hypervisor, channel. Taken as one, given
back as one, and found again as one after a restart.

    make --> Cell (up, greeted, not configured) --> close --> nothing left
    adopt(record): the cell that an earlier host program left, or None if its VM is dead
    sweep(keep): ends everything of ours that no record speaks of
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mags.host.guest import Channel, ChannelClosed
from mags.host.isolation import Cgroup, Cgroups, UidPool
from mags.host.machines.record import Record, Records
from mags.host.network import Namespace, NamespacePool, NetworkMissing
from mags.host.vmm.driver import Vm, Vmm, VmmError
from mags.host.vmm.spec import VmSpec as Shape
from mags.host.vmm.spec import WorkDisk
from mags.protocol.guest import Offsets
from mags.protocol.messages import VmSpec

log = logging.getLogger(__name__)

GREETING_S = 60.0
"""A clone that has not greeted after this long is broken."""
OOM_SCORE = 500
"""Of a hypervisor: when the host runs out of memory, a VM goes first, never one of our programs."""


def shape(spec: VmSpec) -> Shape:
    """The driver's view of a spec."""
    return Shape(image=spec.image, vcpus=spec.vcpus, memory_mb=spec.memory_mb, disk_gb=spec.disk_gb)


@dataclass(slots=True)
class Cell:
    """A VM that is up, with all that belongs to it."""

    record: Record
    vm: Vm
    channel: Channel
    namespace: Namespace
    group: Cgroup | None

    @property
    def alive(self) -> bool:
        return not self.vm.died.done() and not self.channel.closed.done()

    async def leave(self) -> None:
        """Let go of a VM that goes on without us. Harmless if it has ended."""
        await self.channel.aclose()
        if not self.vm.died.done():
            await self.vm.release()


class Cells:
    """Makes and ends cells; at most `at_once` are being made, others wait their turn."""

    def __init__(
        self,
        vmm: Vmm,
        namespaces: NamespacePool,
        uids: UidPool,
        groups: Cgroups,
        records: Records,
        *,
        directory: Path,
        at_once: int,
    ) -> None:
        self.vmm, self.namespaces, self.records = vmm, namespaces, records
        self._uids, self._groups, self._directory = uids, groups, directory
        self._aside = directory.parent / "unsaved"
        self.turn = asyncio.Semaphore(at_once)
        """Held by whoever starts a hypervisor."""
        self.making = 0
        """How many are being made or wait for their turn."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o711)

    async def make(
        self,
        record: Record,
        *,
        work_disk: WorkDisk | None = None,
        on_running: Callable[[Vm, Namespace], None] | None = None,
    ) -> Cell:
        """A clone for the record (`handle`, `uid` and `namespace` are filled in and the record written first, so that
        a crash leaves no orphan unknown). Raises VmmError, NetworkError, UidsExhausted, ChannelClosed, TimeoutError.

        on_running: called when the VM runs, while its guest is about to greet.
        """
        self.making += 1
        try:
            async with self.turn:
                return await self._make(record, work_disk, on_running)
        finally:
            self.making -= 1

    async def _make(
        self, record: Record, work_disk: WorkDisk | None, on_running: Callable[[Vm, Namespace], None] | None
    ) -> Cell:
        record.uid = self._uids.take()
        vm: Vm | None = None
        namespace: Namespace | None = None
        try:
            namespace = await self.namespaces.take()
            record.namespace = namespace.index
            self.records.write(record)
            group = self.group(record)
            vm = await self.vmm.clone(
                shape(record.spec),
                self.directory(record),
                namespace=namespace,
                uid=record.uid,
                work_disk=work_disk,
                group=group,
            )
            offer_to_the_oom_killer(vm.pid)
            if on_running is not None:
                on_running(vm, namespace)
            channel = await Channel.connect(vm.channel_path, timeout=GREETING_S)
            return Cell(record, vm, channel, namespace, group)
        except BaseException:
            await asyncio.shield(self._free(record, vm, namespace))
            raise

    def directory(self, record: Record) -> Path:
        """The VM's own."""
        return self._directory / record.handle

    def group(self, record: Record) -> Cgroup | None:
        """A control group for a VM that is to come up (again)."""
        return self._groups.create(record.handle, memory_mb=record.spec.memory_mb, vcpus=record.spec.vcpus)

    async def network(self, record: Record) -> Namespace:
        """The VM's network as it was, or a new one if it is gone, as after a restart of the machine."""
        if record.namespace is not None:
            try:
                return await self.namespaces.adopt(record.namespace)
            except NetworkMissing:
                pass
        namespace = await self.namespaces.take()
        record.namespace = namespace.index
        self.records.write(record)
        return namespace

    async def close(self, cell: Cell) -> None:
        """End the VM and give everything back, the record last. Harmless if repeated."""
        await cell.channel.aclose()
        await self._free(cell.record, cell.vm, cell.namespace)

    async def adopt(self, record: Record, *, resume: Mapping[int, Offsets] | None = None) -> Cell | None:
        """The cell as an earlier program left it; None if the VM is dead (call `clean`). The VM must not be paused."""
        self._uids.adopt(record.uid)
        vm = await self.vmm.adopt(self._directory / record.handle)
        if vm is None:
            return None
        try:
            if record.namespace is None:
                raise NetworkMissing("the record names no network")
            namespace = await self.namespaces.adopt(record.namespace)
            await vm.resume()
            channel = await greet(vm, resume=resume)
        except (NetworkMissing, VmmError, ChannelClosed, TimeoutError) as error:
            log.warning("the VM %s can't be adopted: %s", record.handle, error)
            await vm.kill()
            return None
        return Cell(record, vm, channel, namespace, self._groups.adopt(record.handle))

    async def clean(self, record: Record) -> None:
        """Remove what a dead VM has left."""
        vm = await self.vmm.adopt(self._directory / record.handle)
        await self._free(record, vm, None)

    async def set_aside(self, record: Record) -> Path:
        """Keep what a dead VM has left, for a person to look at: where it is now. For root only. OSError."""
        assert record.attachment is not None
        place = self._aside / f"{record.attachment.workspace_id}.{record.handle}"
        self._aside.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(self.directory(record).rename, place)
        return place

    async def sweep(self, keep: Collection[Record]) -> None:
        """End VMs, groups and networks of this installation that belong to no record in `keep`."""
        handles = {record.handle for record in keep}
        for directory in self._directory.iterdir():
            if directory.name in handles:
                continue
            log.warning("ending the orphan VM %s", directory.name)
            vm = await self.vmm.adopt(directory)
            if vm is not None:
                await vm.kill()
            await asyncio.to_thread(_remove_tree, directory)
        for name in await self._groups.sweep(handles):
            log.warning("removed the orphan control group %s", name)
        for record in keep:
            # After a restart of the machine the numbers are given out anew: it must not take another VM's for its own.
            if record.namespace is not None and not self.namespaces.left(record.namespace):
                record.namespace = None
                self.records.write(record)
        networks = {record.namespace for record in keep if record.namespace is not None}
        for index in await self.namespaces.sweep(networks):
            log.warning("removed the orphan network %d", index)

    async def _free(self, record: Record, vm: Vm | None, namespace: Namespace | None) -> None:
        """Every step may fail or have been done: what is left is an orphan for the next sweep, and said in the log."""
        directory = self._directory / record.handle
        if vm is not None:
            await _try(vm.destroy, f"end the VM {record.handle}")
        if directory.exists():
            await asyncio.to_thread(_remove_tree, directory)
        group = self._groups.adopt(record.handle)
        if group is not None:
            await _try(group.destroy, f"remove the control group {record.handle}")
        if namespace is None and record.namespace is not None:
            try:
                namespace = await self.namespaces.adopt(record.namespace)
            except NetworkMissing:
                pass
        if namespace is not None:
            network = namespace
            await _try(lambda: self.namespaces.release(network), f"remove the network {network.index}")
        self._uids.release(record.uid)
        self.records.remove(record.handle)


async def greet(
    vm: Vm,
    *,
    resume: Mapping[int, Offsets] | None = None,
    turn: asyncio.Semaphore | None = None,
) -> Channel:
    """The channel to a guest that ran before. One that stands still for want of its disk answers when it goes on.

    turn: held by the caller, and given to others meanwhile. Raises ChannelClosed, TimeoutError.
    """
    while True:
        try:
            return await Channel.connect(vm.channel_path, timeout=GREETING_S, resume=resume)
        except TimeoutError:
            if not vm.stall.reason:
                raise
        if turn is not None:
            turn.release()
        try:
            await vm.stall.ends()
        finally:
            if turn is not None:
                await turn.acquire()


def new_handle() -> str:
    """Short: unix sockets lie under it, and their paths are bounded."""
    return secrets.token_hex(5)


async def _try(step: Callable[[], Awaitable[None]], words: str) -> None:
    try:
        await step()
    except Exception as error:
        log.error("could not %s: %s: %s", words, type(error).__name__, error)


def _remove_tree(directory: Path) -> None:
    """Like rm -rf; what can't be removed is said in the log and left."""
    shutil.rmtree(directory, onerror=lambda _, path, info: log.error("can't remove %s: %s", path, info[1]))


def offer_to_the_oom_killer(pid: int) -> None:
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(OOM_SCORE))
    except OSError as error:
        log.debug("no OOM score for %d: %s", pid, error)
