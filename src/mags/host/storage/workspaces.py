"""Workspaces on the mounted volume: attach them to VMs, list, delete, and collect what nobody needs.

    attach -> Attached --begin, publish--> generation --committed--> older ones dropped --release--> (no lease)

Attaching the same VM again (after a restart of the host program) continues where its lease says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from mags.host.storage import blanks, layout
from mags.host.storage.attached import Attached
from mags.host.storage.collector import Collector
from mags.host.storage.errors import Deleted, GenerationMissing, StaleEpoch, StorageError, StorageUnavailable
from mags.host.storage.generations import Generations, every, remove_tree
from mags.host.storage.layout import GIB, ROOT_INODE, Lease, Manifest
from mags.host.storage.threads import TIMEOUT, Threads
from mags.protocol.ids import is_id
from mags.protocol.messages import Attachment

log = logging.getLogger("mags.storage.workspaces")

T = TypeVar("T")
CloneTree = Callable[[Path, Path], Awaitable[None]]


class Workspaces:
    """All workspaces of a volume, as one host sees them."""

    def __init__(
        self,
        mount: Path,
        threads: Threads,
        *,
        host_id: str,
        scratch: Path,
        clone_tree: CloneTree,
        require: Callable[[], None],
    ) -> None:
        """require: raises StorageUnavailable when what is written to the volume would be lost. Blocks."""
        self.mount, self.host_id, self._require = mount, host_id, require
        self._threads = threads
        self._scratch, self._clone_tree = scratch, clone_tree
        self._attached: dict[str, Attached] = {}
        self._collector = Collector(mount, lambda: set(self._attached))
        self._deleted = mount / layout.DELETED_WORKSPACES
        self._making_blank = asyncio.Lock()

    async def work(self, work: Callable[[], T], *, timeout: float = TIMEOUT) -> T:
        """Do file work on the volume in a thread.

        StorageUnavailable when the volume fails, is not mounted before or after, or takes longer than `timeout`
        seconds: without a mount everything looks deleted.
        """
        return await self._threads.run_within(timeout, lambda: self.guarded(work))

    def guarded(self, work: Callable[[], T]) -> T:
        """The same in this thread, as long as it takes."""
        try:
            self._require_mount()
            self._require()
            try:
                return work()
            finally:
                self._require_mount()
        except OSError as error:
            raise StorageUnavailable(
                f"The volume of the workspaces does not work: {error.strerror or error}."
            ) from error

    def _require_mount(self) -> None:
        here, above = self.mount.stat(), self.mount.parent.stat()
        if here.st_ino != ROOT_INODE or here.st_dev == above.st_dev:
            raise StorageUnavailable("The volume of the workspaces is not mounted at the moment; it is being mounted.")

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do long work in a thread, as long as it takes."""
        return self._threads.start(work)

    def of(self, workspace_id: str) -> Generations:
        """The directory of a workspace. StorageError if that is no id."""
        if not is_id(workspace_id):
            raise StorageError(f"{workspace_id!r} is not the id of a workspace.")
        return Generations(self.mount / "workspaces" / workspace_id)

    async def attach(
        self, attachment: Attachment, *, vm_id: str, owner: str = "", name: str = "", image: str = ""
    ) -> Attached:
        """Give a workspace to a VM: its lease, the image to start from, and its /jfs.

        A fork (base without discard) has a first generation at once (`Attached.generation`): commit it before the
        guest may write. GenerationMissing, StaleEpoch, StorageError, StorageUnavailable.
        """
        if not is_id(vm_id):
            raise StorageError(f"{vm_id!r} is not the id of a VM.")
        if attachment.discard:
            found = await self._borrow(attachment, vm_id)
        else:
            found = await self._own(attachment, vm_id, owner, name, image)
        self._attached[vm_id] = found
        return found

    async def _own(self, attachment: Attachment, vm_id: str, owner: str, name: str, image: str) -> Attached:
        generations = self.of(attachment.workspace_id)
        base = self.of(attachment.base) if attachment.base is not None and attachment.generation == 0 else None

        def look() -> tuple[Manifest | None, Lease, bool]:
            """The manifest if it is to be written, the lease, and whether that is new."""
            if generations.deleted:
                raise Deleted(f"Workspace {attachment.workspace_id} was deleted.")
            if attachment.generation and not generations.directory.exists():
                generations.path(attachment.generation)  # says what is missing
            generations.make()
            known = generations.manifest()
            manifest = _claimed(known, attachment, owner, name, image)
            lease = generations.read_lease(vm_id)
            new = lease is None or lease.epoch != attachment.epoch  # not the same VM again
            if lease is None or new:
                lease = Lease(vm_id=vm_id, host_id=self.host_id, epoch=attachment.epoch, pending=base is not None)
                lease.base = lease.parent = _current(generations, attachment, manifest)
                lease.blank_gb = 0 if lease.base else attachment.disk_gb
            return None if manifest == known else manifest, lease, new

        async def take() -> Lease:
            manifest, lease, new = await self.work(look)
            writes: list[Callable[[], None]] = []
            if manifest is not None:
                writes.append(lambda: generations.write_manifest(manifest))
            if new:
                writes.append(lambda: self._lease(generations, lease))
            # At once, as each waits for the object store. If one fails, the other is waited for: it must not come late.
            for outcome in await asyncio.gather(*(self.work(write) for write in writes), return_exceptions=True):
                if outcome is not None:
                    raise outcome
            return lease

        def begun() -> bool:
            lease = generations.read_lease(vm_id)
            return lease is not None and lease.epoch == attachment.epoch and not lease.pending

        if base is None or await self.work(begun):
            lease = await take()
        else:
            source = await self._lease_of_base(base, attachment, vm_id)  # before anything is made
            lease = await take()
            await self._fork(base, source, generations, lease, attachment)
        return await self._hand_over(attachment, generations, lease, generations.jfs)

    def _lease(self, generations: Generations, lease: Lease) -> None:
        """Write a new lease, unless there is nothing to lease: only under it that can't be overlooked.

        StaleEpoch if the workspace is on its way out, GenerationMissing if the image is not there.
        """
        generations.lease(lease)
        try:
            if generations.deleted:
                raise Deleted(f"Workspace {generations.directory.name} was deleted.")
            if lease.base:
                generations.path(lease.base)
        except StorageError:
            generations.end_lease(lease.vm_id)
            raise

    async def _fork(
        self, base: Generations, source: Lease, generations: Generations, lease: Lease, attachment: Attachment
    ) -> None:
        """Copy a base by metadata only, under the lease `source` on it. The fork's own lease is pending until all is
        there: what a crash leaves is begun anew."""
        image = await self._image(base, source)

        def copy() -> None:
            draft = generations.begin(lease.vm_id, image, attachment.disk_gb * GIB)
            lease.base = lease.parent = generations.publish(draft, above=0)
            lease.blank_gb = 0

        def complete() -> None:
            lease.pending = False
            generations.lease(lease)
            base.end_lease(lease.vm_id)

        await self.work(copy)
        await self._copy_jfs(base.jfs, generations.jfs)
        await self.work(complete)

    async def _borrow(self, attachment: Attachment, vm_id: str) -> Attached:
        base = self.of(attachment.base or attachment.workspace_id)
        jfs = self.mount / layout.SCRATCH / vm_id / layout.JFS
        lease = await self._lease_of_base(base, attachment, vm_id)
        if lease.pending:

            def make() -> None:
                jfs.parent.mkdir(mode=layout.DIRECTORY_MODE, parents=True, exist_ok=True)
                jfs.mkdir(mode=0o755, exist_ok=True)

            def complete() -> None:
                lease.pending = False
                base.lease(lease)

            await self.work(make)
            await self._copy_jfs(base.jfs, jfs)
            await self.work(complete)
        return await self._hand_over(attachment, base, lease, jfs)

    async def _lease_of_base(self, base: Generations, attachment: Attachment, vm_id: str) -> Lease:
        """The VM's lease on the base, or on a newer generation of it where that has been synced meanwhile.

        GenerationMissing if there is no such base (any more).
        """

        def work() -> Lease:
            return base.read_lease(vm_id) or new()

        def new() -> Lease:
            number = attachment.base_generation
            while True:
                lease = Lease(vm_id=vm_id, host_id=self.host_id, base=number, parent=number)
                lease.discard = lease.pending = attachment.discard
                lease.blank_gb = 0 if number else attachment.disk_gb
                try:
                    self._lease(base, lease)
                    return lease
                except GenerationMissing:
                    manifest = base.manifest()
                    if manifest is None or manifest.generation <= number:
                        raise
                    number = manifest.generation
                except (FileNotFoundError, StaleEpoch):
                    raise GenerationMissing(f"The base workspace {base.directory.name} was deleted.") from None

        return await self.work(work)

    async def _hand_over(self, attachment: Attachment, generations: Generations, lease: Lease, jfs: Path) -> Attached:
        image = await self._image(generations, lease)
        size = await self.work(lambda: image.stat().st_size)
        size = max(size, attachment.disk_gb * GIB)
        return Attached(self, attachment, generations, lease, image, size, jfs)

    async def _image(self, generations: Generations, lease: Lease) -> Path:
        """What lies under the VM's own overlay."""
        if not lease.base:
            return await self.blank(lease.blank_gb)
        return await self.work(lambda: generations.path(lease.base))

    async def _copy_jfs(self, source: Path, target: Path) -> None:
        """Give `target`, which is there, the tree `source` by metadata only. What is there was copied by an earlier
        attempt, and whole: a clone appears when it is."""

        def names() -> list[str]:
            there = {path.name for path in target.iterdir()}
            return sorted(path.name for path in source.iterdir() if path.name not in there) if source.is_dir() else []

        for name in await self.work(names):
            await self._clone_tree(source / name, target / name)

    async def blank(self, disk_gb: int) -> Path:
        """The empty disk of a size; made if the volume has none yet."""
        path = layout.blank_path(self.mount, disk_gb * GIB)
        if await self.work(path.exists):
            return path
        async with self._making_blank:
            if not await self.work(path.exists):
                await blanks.make(path, disk_gb * GIB, self._scratch, self.work)
        return path

    async def release(self, attached: Attached) -> None:
        self._attached.pop(attached.vm_id, None)

        def work() -> None:
            attached.end()
            if attached.attachment.discard:
                remove_tree(attached.jfs.parent)
            if attached.generations.deleted:
                attached.generations.erase(self._deleted)

        await self.work(work)

    async def manifests(self, *, after: str = "", limit: int | None = None) -> list[Manifest]:
        """The manifests of the workspaces that are not deleted, by id: of those behind `after`, so many at most."""

        def work() -> list[Manifest]:
            later = (each for each in every(self.mount) if each.directory.name > after)
            whole = (each.manifest() for each in later if not each.deleted)
            return list(islice((manifest for manifest in whole if manifest is not None), limit))

        return await self.work(work)

    async def delete(self, workspace_id: str) -> None:
        """Remove a workspace. Images that a VM still reads linger until it ends. Idempotent."""
        generations = self.of(workspace_id)

        def work() -> None:
            if generations.directory.exists():
                generations.mark_deleted()
                generations.erase(self._deleted)

        await self.work(work)

    async def beat(self) -> None:
        """Keep the leases of our VMs alive. Call it about once a minute."""

        def work() -> None:
            for attached in list(self._attached.values()):
                try:
                    attached.beat()
                except FileNotFoundError:
                    log.warning("workspace %s is gone under VM %s", attached.attachment.workspace_id, attached.vm_id)

        await self.work(work)

    async def collect(self, *, now: float | None = None) -> None:
        """Sweep all workspaces: dead hosts' leases, half-done drafts, deleted workspaces. `now`: monotonic seconds."""
        moment = time.monotonic() if now is None else now
        await self.work(lambda: self._collector.collect(moment))


def _current(generations: Generations, attachment: Attachment, manifest: Manifest) -> int:
    """The generation to start from: the database's, or the volume's if that is all there is and it is newer.

    A database that was restored from a backup names generations that are long gone.
    """
    if attachment.generation not in (0, *generations.numbers()) and manifest.generation > attachment.generation:
        log.warning(
            "workspace %s: generation %d is gone, going on with %d",
            manifest.id,
            attachment.generation,
            manifest.generation,
        )
        return manifest.generation
    return attachment.generation


def _claimed(known: Manifest | None, attachment: Attachment, owner: str, name: str, image: str) -> Manifest:
    """The manifest with the attachment's epoch. StaleEpoch if there is a newer one."""
    manifest = known or Manifest(id=attachment.workspace_id, disk_gb=attachment.disk_gb)
    if manifest.epoch > attachment.epoch:
        raise StaleEpoch(
            f"Workspace {attachment.workspace_id} belongs to a newer VM (epoch {manifest.epoch}, "
            f"not {attachment.epoch})."
        )
    return msgspec.structs.replace(
        manifest,
        epoch=attachment.epoch,
        owner=owner or manifest.owner,
        name=name or manifest.name,
        image=image or manifest.image,
        disk_gb=max(manifest.disk_gb, attachment.disk_gb),
    )
