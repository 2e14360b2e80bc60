"""One workspace, one real QEMU without a guest, and the syncer between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mags.host.storage.attached import Attached
from mags.host.storage.engine import Engine
from mags.host.storage.errors import StorageError
from mags.host.storage.syncer import Syncer
from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu.blocksync import BlockSync
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment, Synced
from tests.integration.storage.idle import IdleQemu, idle_qemu

MIB = 1 << 20
SPOT = 700 * MIB


class QuietGuest:
    """Says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def flush(self) -> None:
        self.asked.append("flush")

    async def freeze(self, *, limit_s: float) -> None:
        self.asked.append("freeze")

    async def thaw(self) -> None:
        self.asked.append("thaw")


class Rig:
    """One workspace, one QEMU, one syncer."""

    def __init__(self, engine: Engine, attached: Attached, qemu: IdleQemu) -> None:
        self.engine, self.attached, self.qemu = engine, attached, qemu
        self.guest, self.disk = QuietGuest(), BlockSync(qemu)
        self.commits: list[int] = []
        self.refusal: Exception | None = None
        self.syncer = Syncer(attached, self.disk, lambda: self.guest, commit=self.commit)

    async def commit(self, synced: Synced, used: int) -> None:
        if self.refusal is not None:
            raise self.refusal
        assert used > 0
        self.commits.append(synced.generation)

    async def synced(self) -> Synced:
        """Sync, with the patience of the regular syncs."""
        async with asyncio.timeout(120):
            while True:
                try:
                    return await self.syncer.sync()
                except (StorageError, VmmError):
                    await asyncio.sleep(0.2)

    def read(self, count: int, *, offset: int = SPOT) -> bytes:
        image = self.engine.workspaces.of(self.attached.attachment.workspace_id).path(self.attached.generation)
        with image.open("rb") as file:
            return os.pread(file.fileno(), count, offset)


@asynccontextmanager
async def rig_on(engine: Engine, place: Path) -> AsyncIterator[Rig]:
    """place: where the VM's directory is made."""
    attachment = Attachment(workspace_id=new_id(), epoch=1, disk_gb=1)
    attached = await engine.workspaces.attach(attachment, vm_id=new_id())
    directory = place / "vm"
    directory.mkdir()
    async with idle_qemu(directory, attached.image, attached.size) as qemu:
        rig = Rig(engine, attached, qemu)
        await rig.disk.track()
        yield rig
