"""A workspace in the hands of one VM: its drafts and generations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from mags.host.storage.errors import Deleted, StaleEpoch, StorageError
from mags.host.storage.generations import Generations
from mags.host.storage.layout import Lease
from mags.host.storage.threads import TIMEOUT
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment

T = TypeVar("T")

REACH_TIMEOUT = 10.0


class Holder(Protocol):
    """Who gave it (workspaces.Workspaces)."""

    async def work(self, work: Callable[[], T], *, timeout: float = TIMEOUT) -> T: ...

    def guarded(self, work: Callable[[], T]) -> T: ...

    async def release(self, attached: Attached) -> None: ...


class Attached:
    """A workspace in the hands of one VM. `Workspaces.attach` makes it."""

    def __init__(
        self,
        holder: Holder,
        attachment: Attachment,
        generations: Generations,
        lease: Lease,
        image: Path,
        size: int,
        jfs: Path,
    ) -> None:
        self.attachment, self.vm_id = attachment, lease.vm_id
        self.image = image
        """The raw image that the VM's own overlay lies over. Never written."""
        self.size = size
        """Bytes of the VM's disk."""
        self.jfs = jfs
        """The directory that the guest sees as /jfs."""
        self.lease = lease
        self.generations, self._holder = generations, holder
        self._writing, self._ended = threading.Lock(), False

    @property
    def generation(self) -> int:
        """The newest generation of this VM: what a sync adds to. 0: nothing was ever published."""
        return self.lease.parent

    async def work(self, work: Callable[[], T], *, timeout: float = TIMEOUT) -> T:
        """Do file work on the volume in a thread: see `Workspaces.work`."""
        return await self._holder.work(work, timeout=timeout)

    async def reach(self) -> None:
        """StorageUnavailable if the volume does not answer now.

        To be asked before the hypervisor is: it looks at the image itself (fstat), and would hang, and the guest with
        it. What the kernel hears now it does not ask again for a second.
        """

        def look() -> None:
            # A name that no cache can know: the answer comes from the metadata engine.
            (self.image.parent / f".probe-{new_id()}").exists()
            self.image.stat()

        await self.work(look, timeout=REACH_TIMEOUT)

    async def check_owned(self) -> None:
        """StaleEpoch when a newer attachment has the workspace, or it was deleted."""
        await self.work(self._check_epoch)

    def look_owned(self) -> None:
        """The same, and StorageUnavailable when that can't be told now. Blocks."""
        self._holder.guarded(self._check_epoch)

    async def begin(self, size: int, *, anew: bool = False) -> Path:
        """A draft of the next generation: the newest one's bytes, for a disk of `size` bytes.

        anew: begin with the bytes of `image` instead, under which the VM's own overlay lies.
        """
        return await self.work(lambda: self._begin(size, anew))

    def _begin(self, size: int, anew: bool) -> Path:
        self._check_epoch()
        parent = self.generations.path(self.lease.parent) if self.lease.parent and not anew else self.image
        return self.generations.begin(self.vm_id, parent, size)

    async def publish(self, draft: Path) -> int:
        """The draft's number, once it is a generation. Its bytes must be in the store (fsync) before.

        StaleEpoch when a newer attachment has written to the workspace: nothing is published then.
        """
        return await self.work(lambda: self._publish(draft))

    def _publish(self, draft: Path) -> int:
        self._check_epoch()
        number = self.generations.publish(draft, above=self.lease.parent)
        with self._writing:
            self.lease.parent = number
            self._write_lease()
        return number

    def beat(self) -> None:
        """Say that the VM lives. Blocks."""
        with self._writing:
            self.lease.beat += 1
            self._write_lease()

    def end(self) -> None:
        """The VM needs nothing any more. Blocks."""
        with self._writing:
            self._ended = True
            self.generations.end_lease(self.vm_id)

    def _write_lease(self) -> None:
        """Only under the lock: an older lease must never come after a newer one, nor any after the last."""
        if not self._ended:
            self.generations.lease(self.lease)

    async def used_bytes(self) -> int:
        """Bytes in use in the newest generation's file system."""
        if self.lease.parent == 0:
            return 0
        return await self.work(lambda: self.generations.used_bytes(self.lease.parent))

    async def committed(self, number: int) -> None:
        """The database has `number` as the current generation: older ones go, but for the last and leased ones."""
        await self.work(lambda: self._committed(number))

    def _committed(self, number: int) -> None:
        manifest = self.generations.manifest()
        if manifest is not None and manifest.epoch <= self.attachment.epoch and manifest.generation < number:
            before, manifest.generation = manifest.generation, number
            manifest.epoch = self.attachment.epoch
            manifest.synced_ms = int(time.time() * 1000)
            manifest.size_bytes = self.generations.used_bytes(number)
            manifest.disk_gb = max(manifest.disk_gb, self.attachment.disk_gb)
            self.generations.write_manifest(manifest)
            self.generations.drop(keep=(before,), below=number)

    async def release(self) -> None:
        """The VM is gone: its lease ends, and what it wrote if it was to be dropped. Idempotent."""
        await self._holder.release(self)

    def _check_epoch(self) -> None:
        if self.attachment.discard:
            raise StorageError(
                "The changes of this VM are dropped: it runs on a base workspace and has none of its own."
            )
        manifest = self.generations.manifest()
        if manifest is None or self.generations.deleted:
            raise Deleted(f"Workspace {self.attachment.workspace_id} was deleted.")
        if manifest.epoch > self.attachment.epoch:
            raise StaleEpoch(
                f"Workspace {self.attachment.workspace_id} belongs to a newer VM by now (epoch {manifest.epoch}, "
                f"ours is {self.attachment.epoch}): this VM's changes are refused."
            )
