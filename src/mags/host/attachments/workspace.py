"""The synced workspace of one VM, from its attachment to its release.

    attached -> [serve: /jfs reachable] -> [begin: changes are followed] -> sync ... -> settle -> release
                                                                        `-> (VM died) salvage -> release

`settle` is for a VM that sleeps or ends next: everything is synced and the guest writes no more. After a wake, or in
a new host program, `begin` comes again before the guest may write.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from mags.host.attachments.hearing import Hearing
from mags.host.attachments.problems import as_problems
from mags.host.guest import Jfs
from mags.host.jfs import Exports, Permit
from mags.host.network.addresses import GATEWAY_ADDRESS
from mags.host.storage.attached import Attached
from mags.host.storage.errors import StaleEpoch, StorageError, StorageUnavailable
from mags.host.storage.layout import GIB
from mags.host.storage.syncer import Guest, Syncer, recover
from mags.host.vmm.driver import Vm, Vmm
from mags.host.vmm.spec import WorkDisk
from mags.kit.tasks import end
from mags.protocol.errors import Problem
from mags.protocol.messages import Synced, WorkspaceSynced

log = logging.getLogger(__name__)

OWNED_S = 5.0
"""Between two looks whether the workspace is still ours."""
GUEST_JFS_PORT = 2049
"""TCP port of the guest's gateway where its /jfs is."""

Publish = Callable[[WorkspaceSynced], Awaitable[None]]
"""Tells control of a generation; returns when the message is safe."""


class Workspace:
    """Made by `Attachments.attach`. Its methods raise Problem: `conflict` when another VM owns the workspace now."""

    def __init__(
        self, attached: Attached, exports: Exports, publish: Publish, hearing: Hearing, *, interval: float
    ) -> None:
        self.jfs = Jfs(IPv4Address(GATEWAY_ADDRESS), GUEST_JFS_PORT, "/jfs")
        """What the guest is to mount; reachable after `serve`."""
        self._attached, self._exports, self._publish, self._interval = attached, exports, publish, interval
        self._hearing, self._stale = hearing, False
        self._announced = False
        self._syncer: Syncer | None = None
        self._vm: Vm | None = None

    @property
    def work_disk(self) -> WorkDisk:
        """The VM's disk: for `Vmm.clone` and `Vmm.wake`."""
        return WorkDisk(self._attached.image, self._attached.size)

    @property
    def discard(self) -> bool:
        """Whether the changes are dropped at the end; then there is nothing to sync."""
        return self._attached.attachment.discard

    @property
    def last(self) -> Synced | None:
        """The last sync by this program."""
        return self._syncer.last if self._syncer is not None else None

    @property
    def trouble(self) -> str:
        """Empty, or why the last sync failed."""
        return self._syncer.trouble if self._syncer is not None else ""

    async def serve(self, host_address: str) -> None:
        """Make /jfs reachable for the VM behind this address (network.Namespace.host_address). Repeatable."""
        with as_problems():
            await self._exports.remove(self._attached.vm_id)
            export = await self._exports.add(
                self._attached.vm_id, host_address, self._attached.jfs, permit=self._permit
            )
            self.jfs = replace(self.jfs, handle=export.handle)

    def _permit(self) -> Permit:
        """Whether the guest may change /jfs now. Blocks. Nothing refuses there what comes too late, as a sync is: so it
        is looked each time whose the workspace is, unless it can't have been given away."""
        if self._stale:
            return Permit.NO
        if self.discard or self._hearing.holds:
            return Permit.FREELY
        try:
            self._attached.look_owned()
            return Permit.AT_ONCE
        except StaleEpoch as error:
            self._stale = True
            log.warning("VM %s may not change /jfs any more: %s", self._attached.vm_id, error)
        except StorageError as error:
            log.debug("VM %s may not change /jfs now: %s", self._attached.vm_id, error)
        return Permit.NO

    async def begin(self, vm: Vm, guest: Callable[[], Guest]) -> None:
        """Tell control of a fork, and follow the changes of a VM's disk. Before the guest may write: configured, or
        thawed after a wake.

        guest: gives the channel to the agent, as it is at that moment.
        """
        with as_problems():
            self._vm = vm
            await self._announce()
            changes = vm.changes()
            await changes.track()
            self._syncer = Syncer(self._attached, changes, guest, commit=self._commit)

    async def sync(self) -> Synced:
        """Sync now; returns when it is durable and control will know. Nothing is lost when it fails."""
        with as_problems():
            return await self._need().sync()

    async def settle(self) -> None:
        """Sync everything and leave the guest frozen; `resume` thaws it."""
        if not self.discard:
            with as_problems():
                await self._need().settle()

    async def resume(self) -> None:
        """Thaw a settled guest: its stop was called off, or it has woken."""
        if not self.discard:
            with as_problems():
                await self._need().resume()

    async def run(self) -> None:
        """Sync regularly, for ever; ends with Problem `conflict` when another VM owns the workspace: stop this one."""
        if self.discard:
            return
        with as_problems():
            ways = [asyncio.ensure_future(self._need().run(self._interval)), asyncio.ensure_future(self._watch())]
            try:
                done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
            finally:
                await end(ways)

    async def _watch(self) -> None:
        """Ends with StaleEpoch. A VM that changes nothing on its disk has nothing to be refused: so it is looked whose
        the workspace is."""
        while True:
            await asyncio.sleep(OWNED_S)
            try:
                await self._attached.check_owned()
            except StorageUnavailable:
                pass  # nobody else can take it over now either, and the next sync says so

    async def grow(self, disk_gb: int) -> None:
        """Give the disk a new size, never a smaller one; the guest's file system is to be grown next."""
        if self._vm is None:
            raise Problem("conflict", "The VM is not up: its disk grows at its next start.")
        with as_problems():
            attached = self._attached
            attached.size = max(attached.size, disk_gb * GIB)
            attached.attachment.disk_gb = max(attached.attachment.disk_gb, disk_gb)
            await self._vm.resize_disk(attached.size)

    async def salvage(self, vmm: Vmm, directory: Path) -> None:
        """Make a generation of what the disk of a dead VM still holds in its directory. Repeatable."""
        if self.discard:
            return
        with as_problems():
            size = self._attached.size
            number = await recover(self._attached, lambda draft: vmm.salvage(directory, draft, size))
            await self._tell(number, 0)
            await self._attached.committed(number)

    async def release(self) -> None:
        """The VM is gone for good: /jfs ends, and the lease on what it read. Idempotent."""
        with as_problems():
            await self._exports.remove(self._attached.vm_id)
            await self._attached.release()

    async def _announce(self) -> None:
        """Tell control of a fork's first generation, and of what it missed."""
        told = self._announced or self.discard
        if not told and self._attached.generation > self._attached.attachment.generation:
            await self._tell(self._attached.generation, 0)
            await self._attached.committed(self._attached.generation)
        self._announced = True

    async def _commit(self, synced: Synced, used: int) -> None:
        attachment = self._attached.attachment
        await self._publish(
            WorkspaceSynced(
                vm_id=self._attached.vm_id,
                workspace_id=attachment.workspace_id,
                epoch=attachment.epoch,
                generation=synced.generation,
                bytes=synced.bytes,
                size_bytes=used,
                at_ms=synced.synced_at_ms,
            )
        )

    async def _tell(self, number: int, written: int) -> None:
        synced = Synced(synced_at_ms=time.time_ns() // 1_000_000, bytes=written, generation=number)
        await self._commit(synced, await self._attached.used_bytes())

    def _need(self) -> Syncer:
        if self._syncer is None:
            raise Problem("conflict", "The VM is not up: there is nothing to sync.")
        if self.discard:
            raise Problem("conflict", "This VM's changes are dropped at its end: it has no workspace to sync to.")
        return self._syncer
