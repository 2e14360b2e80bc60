"""Workspaces on the mounted volume: attach them to VMs, list, delete, and collect what nobody needs.

    attach -> Attached --begin, publish--> generation --committed--> older ones dropped --release--> (no lease)

Attaching the same VM again (after a restart of the host program) continues where its lease says.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from typing import TypeVar

from mags.host.storage import blanks, layout
from mags.host.storage.attached import Attached
from mags.host.storage.errors import StaleEpoch, StorageError, StorageUnavailable
from mags.host.storage.generations import Generations
from mags.host.storage.layout import GIB, ROOT_INODE, Lease, Manifest
from mags.host.storage.threads import TIMEOUT, Threads
from mags.protocol.ids import is_id
from mags.protocol.messages import Attachment

log = logging.getLogger("mags.storage.workspaces")

LEASE_LIFE = 24 * 3600.0
"""Seconds that a lease may stand still, by our monotonic clock, until its host counts as dead: clocks may jump."""

T = TypeVar("T")
CloneTree = Callable[[Path, Path], Awaitable[None]]


class Workspaces:
    """All workspaces of a volume, as one host sees them."""

    def __init__(self, mount: Path, threads: Threads, *, host_id: str, scratch: Path, clone_tree: CloneTree) -> None:
        self.mount, self.host_id = mount, host_id
        self._threads = threads
        self._scratch, self._clone_tree = scratch, clone_tree
        self._attached: dict[str, Attached] = {}
        self._seen: dict[tuple[str, str], tuple[int, float]] = {}
        self._making_blank = asyncio.Lock()

    async def work(self, work: Callable[[], T], *, timeout: float = TIMEOUT) -> T:
        """Do file work on the volume in a thread.

        StorageUnavailable when the volume fails, is not mounted before or after, or takes longer than `timeout`
        seconds: without a mount everything looks deleted.
        """

        def guarded() -> T:
            try:
                self._require_mount()
                try:
                    return work()
                finally:
                    self._require_mount()
            except OSError as error:
                raise StorageUnavailable(
                    f"The volume of the workspaces does not work: {error.strerror or error}."
                ) from error

        return await self._threads.run_within(timeout, guarded)

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
        VM starts. GenerationMissing, StaleEpoch, StorageError, StorageUnavailable.
        """
        if not is_id(vm_id):
            raise StorageError(f"{vm_id!r} is not the id of a VM.")
        found = await (self._borrow if attachment.discard else self._own)(attachment, vm_id, owner, name, image)
        self._attached[vm_id] = found
        return found

    async def _own(self, attachment: Attachment, vm_id: str, owner: str, name: str, image: str) -> Attached:
        generations = self.of(attachment.workspace_id)
        base = self.of(attachment.base) if attachment.base is not None and attachment.generation == 0 else None
        blank = await self.blank(attachment.disk_gb) if base is None and attachment.generation == 0 else None

        def work() -> tuple[Lease, Path, bool]:
            if generations.deleted:
                raise StaleEpoch(f"Workspace {attachment.workspace_id} was deleted.")
            generations.make()
            manifest = generations.manifest() or Manifest(id=attachment.workspace_id, disk_gb=attachment.disk_gb)
            if manifest.epoch > attachment.epoch:
                raise StaleEpoch(
                    f"Workspace {attachment.workspace_id} belongs to a newer VM (epoch {manifest.epoch}, "
                    f"not {attachment.epoch})."
                )
            manifest.epoch = attachment.epoch
            manifest.owner, manifest.name = owner or manifest.owner, name or manifest.name
            manifest.image = image or manifest.image
            manifest.disk_gb = max(manifest.disk_gb, attachment.disk_gb)
            generations.write_manifest(manifest)
            lease = generations.read_lease(vm_id)
            if lease is not None and lease.epoch == attachment.epoch:  # the same VM again
                under = (
                    generations.path(lease.base)
                    if lease.base
                    else layout.blank_path(self.mount, attachment.disk_gb * GIB)
                )
                return lease, under, False
            lease = Lease(vm_id=vm_id, host_id=self.host_id, epoch=attachment.epoch)
            lease.base = lease.parent = _current(generations, attachment, manifest)
            generations.lease(lease)
            if base is not None:
                draft = generations.begin(vm_id, self._base_image(base, attachment, vm_id), attachment.disk_gb * GIB)
                lease.base = lease.parent = generations.publish(draft, above=0)
                generations.lease(lease)
                base.end_lease(vm_id)
                return lease, generations.path(lease.base), True
            if blank is not None:
                return lease, blank, False
            return lease, generations.path(lease.base), False

        lease, under, forked = await self.work(work)
        if forked and base is not None:
            await self._copy_jfs(base.jfs, generations.jfs)
        return Attached(self, attachment, generations, lease, under, generations.jfs)

    async def _borrow(self, attachment: Attachment, vm_id: str, owner: str, name: str, image: str) -> Attached:
        base = self.of(attachment.base or attachment.workspace_id)
        jfs = self.mount / "scratch" / vm_id / layout.JFS

        def work() -> tuple[Lease, Path, bool]:
            under = self._base_image(base, attachment, vm_id)
            lease = base.read_lease(vm_id)
            assert lease is not None
            fresh = not jfs.exists()
            jfs.parent.mkdir(mode=layout.DIRECTORY_MODE, parents=True, exist_ok=True)
            jfs.mkdir(mode=0o755, exist_ok=True)
            return lease, under, fresh

        lease, under, fresh = await self.work(work)
        if fresh:
            await self._copy_jfs(base.jfs, jfs)
        return Attached(self, attachment, base, lease, under, jfs)

    def _base_image(self, base: Generations, attachment: Attachment, vm_id: str) -> Path:
        """The image of a base, under a lease of the VM's."""
        number = attachment.base_generation
        lease = base.read_lease(vm_id) or Lease(
            vm_id=vm_id, host_id=self.host_id, base=number, parent=number, discard=attachment.discard
        )
        base.lease(lease)
        return self._under(base, lease, attachment)

    def _under(self, generations: Generations, lease: Lease, attachment: Attachment) -> Path:
        return generations.path(lease.base) if lease.base else layout.blank_path(self.mount, attachment.disk_gb * GIB)

    async def _copy_jfs(self, source: Path, target: Path) -> None:
        """Give `target`, which is there and empty, the tree `source` by metadata only."""

        def names() -> list[str]:
            return sorted(path.name for path in source.iterdir()) if source.is_dir() else []

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
            attached.generations.end_lease(attached.vm_id)
            if attached.attachment.discard:
                shutil.rmtree(attached.jfs.parent, ignore_errors=True)
            if attached.generations.deleted:
                attached.generations.erase()

        await self.work(work)

    async def manifests(self, *, after: str = "", limit: int | None = None) -> list[Manifest]:
        """The manifests of the workspaces that are not deleted, by id: of those behind `after`, so many at most."""

        def work() -> list[Manifest]:
            later = (each for each in self._all() if each.directory.name > after)
            whole = (each.manifest() for each in later if not each.deleted)
            return list(islice((manifest for manifest in whole if manifest is not None), limit))

        return await self.work(work)

    async def delete(self, workspace_id: str) -> None:
        """Remove a workspace. Images that a VM still reads linger until it ends. Idempotent."""
        generations = self.of(workspace_id)

        def work() -> None:
            if generations.directory.exists():
                generations.mark_deleted()
                generations.erase()

        await self.work(work)

    async def beat(self) -> None:
        """Keep the leases of our VMs alive. Call it about once a minute."""

        def work() -> None:
            for attached in list(self._attached.values()):
                attached.lease.beat += 1
                try:
                    attached.generations.lease(attached.lease)
                except FileNotFoundError:
                    log.warning("workspace %s is gone under VM %s", attached.attachment.workspace_id, attached.vm_id)

        await self.work(work)

    async def collect(self, *, now: float | None = None) -> None:
        """Sweep all workspaces: dead hosts' leases, half-done drafts, deleted workspaces. `now`: monotonic seconds."""
        moment = time.monotonic() if now is None else now
        await self.work(lambda: self._collect(moment))

    def _collect(self, now: float) -> None:
        standing: dict[tuple[str, str], tuple[int, float]] = {}
        for generations in self._all():
            for vm_id, lease in generations.leases().items():
                key = (generations.directory.name, vm_id)
                beat, since = self._seen.get(key, (lease.beat, now))
                if beat != lease.beat:
                    since = now
                if vm_id not in self._attached and now - since > LEASE_LIFE:
                    log.warning("the lease of VM %s (host %s) stood still for a day; ended", vm_id, lease.host_id)
                    generations.end_lease(vm_id)
                else:
                    standing[key] = (lease.beat, since)
            if generations.deleted:
                generations.erase()
            else:
                generations.sweep()
        self._seen = standing

    def _all(self) -> list[Generations]:
        top = self.mount / "workspaces"
        return [Generations(path) for path in sorted(top.iterdir()) if is_id(path.name)] if top.is_dir() else []


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
