"""The generations of one workspace on the mounted volume. Every call blocks; errors of the volume are OSErrors.

    begin -> draft -> (written, synced to the store) -> publish -> generation -> drop -> gone

A generation is dropped in two steps, so that a VM that takes its lease at the same moment either sees the image or
is seen: it is renamed, leases are read again, and it comes back if one holds it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mags.host.storage import copies, layout, superblock
from mags.host.storage.errors import GenerationMissing
from mags.host.storage.layout import Lease, Manifest
from mags.kit.files import write_atomic


class Generations:
    """One workspace's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def jfs(self) -> Path:
        return self.directory / layout.JFS

    def make(self) -> None:
        """Make the directories. Repeatable."""
        self.directory.mkdir(mode=layout.DIRECTORY_MODE, parents=True, exist_ok=True)
        self.directory.chmod(layout.DIRECTORY_MODE)
        self.jfs.mkdir(mode=0o755, exist_ok=True)

    # --- images

    def path(self, number: int) -> Path:
        """The image of a generation; GenerationMissing if it is not there."""
        path = self.directory / layout.generation_name(number)
        if not path.exists():
            raise GenerationMissing(
                f"Generation {number} of workspace {self.directory.name} is not on this volume: is the host's "
                "metadata engine the one that wrote it?"
            )
        return path

    def numbers(self) -> list[int]:
        """The published generations, in order."""
        return sorted(n for name in self._names() if (n := layout.generation_number(name)) is not None)

    def begin(self, vm_id: str, parent: Path, size: int) -> Path:
        """A draft with the bytes of `parent`, `size` bytes long (never shorter). A leftover of the VM's is replaced."""
        path = self.directory / layout.draft_name(vm_id)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            copies.clone(parent, descriptor)
            if os.fstat(descriptor).st_size < size:
                os.ftruncate(descriptor, size)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return path

    def publish(self, draft: Path, *, above: int) -> int:
        """Make a draft, whose bytes are in the store already, the next generation; its number (> `above`)."""
        draft.chmod(layout.IMAGE_MODE)
        known = [n for name in self._names() for n in (_any_number(name),) if n is not None]
        number = max([above, *known]) + 1
        while True:
            try:
                copies.rename_new(draft, self.directory / layout.generation_name(number))
                return number
            except FileExistsError:  # another host was quicker
                number += 1

    def drop(self, *, keep: Iterable[int], below: int) -> int:
        """Remove generations below a number that are neither kept nor leased; how many went."""
        kept = set(keep)
        dropped = 0
        for number in self.numbers():
            if number >= below or number in kept or number in self._leased():
                continue
            image = self.directory / layout.generation_name(number)
            aside = self.directory / layout.dropped_name(number)
            image.rename(aside)
            if number in self._leased():
                aside.rename(image)
                continue
            aside.unlink()
            dropped += 1
        return dropped

    def used_bytes(self, number: int) -> int:
        """Bytes in use in the file system of a generation (its size, if that can't be told)."""
        descriptor = os.open(self.path(number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            used = superblock.used_bytes(os.pread(descriptor, superblock.SIZE, superblock.OFFSET))
            return used if used is not None else os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    # --- leases

    def lease(self, lease: Lease) -> None:
        """Write a VM's lease, durably."""
        write_atomic(self.directory / layout.lease_name(lease.vm_id), msgspec.json.encode(lease), durable=True)

    def leases(self) -> dict[str, Lease]:
        """All leases by VM. One that can't be read counts as holding everything, so it raises."""
        found = {}
        for name in self._names():
            if (vm_id := layout.lease_vm(name)) is not None:
                lease = self.read_lease(vm_id)
                if lease is not None:
                    found[vm_id] = lease
        return found

    def read_lease(self, vm_id: str) -> Lease | None:
        try:
            return msgspec.json.decode((self.directory / layout.lease_name(vm_id)).read_bytes(), type=Lease)
        except FileNotFoundError:
            return None

    def end_lease(self, vm_id: str) -> None:
        """Forget a VM: its lease and its draft. Idempotent."""
        for name in (layout.draft_name(vm_id), layout.lease_name(vm_id)):
            (self.directory / name).unlink(missing_ok=True)

    def _leased(self) -> set[int]:
        return {number for lease in self.leases().values() for number in (lease.base, lease.parent)}

    # --- the manifest

    def manifest(self) -> Manifest | None:
        try:
            return msgspec.json.decode((self.directory / layout.MANIFEST).read_bytes(), type=Manifest)
        except FileNotFoundError:
            return None

    def write_manifest(self, manifest: Manifest) -> None:
        write_atomic(self.directory / layout.MANIFEST, msgspec.json.encode(manifest), mode=0o600, durable=True)

    # --- its end

    def mark_deleted(self) -> None:
        (self.directory / layout.DELETED).touch(mode=0o600)

    @property
    def deleted(self) -> bool:
        return (self.directory / layout.DELETED).exists()

    def sweep(self) -> None:
        """Finish what a crash left half done: drafts without a lease, images on their way out."""
        leased, vms = self._leased(), set(self.leases())
        for name in self._names():
            path = self.directory / name
            if (vm_id := layout.draft_vm(name)) is not None and vm_id not in vms:
                path.unlink(missing_ok=True)
            elif (number := layout.dropped_number(name)) is not None:
                if number in leased:
                    path.rename(self.directory / layout.generation_name(number))
                else:
                    path.unlink(missing_ok=True)

    def erase(self) -> bool:
        """Remove a deleted workspace as far as no VM reads it; whether nothing is left."""
        self.sweep()
        if self.leases():
            self.drop(keep=(), below=1 << 62)
            return False
        shutil.rmtree(self.directory)
        return True

    def _names(self) -> list[str]:
        try:
            return [entry.name for entry in self.directory.iterdir()]
        except FileNotFoundError:
            return []


def _any_number(name: str) -> int | None:
    number = layout.generation_number(name)
    return number if number is not None else layout.dropped_number(name)
