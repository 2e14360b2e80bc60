"""The generations of one workspace on the mounted volume. Every call blocks; errors of the volume are OSErrors.

    begin -> draft -> (written, synced to the store) -> publish -> generation -> drop -> gone

A generation is dropped in two steps, so that a VM that takes its lease at the same moment either sees the image or
is seen: it is renamed, leases are read again, and it comes back if one holds it. So is a workspace: it is marked, then
leases are read, and it leaves in one rename; who takes a lease looks for the mark afterwards. A crash in the middle
never leaves half a workspace that looks like a whole one.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from mags.host.storage import copies, layout, superblock
from mags.host.storage.errors import GenerationMissing, StorageUnavailable
from mags.host.storage.layout import Lease, Manifest
from mags.kit.files import write_atomic
from mags.protocol.ids import is_id

T = TypeVar("T")

GONE = frozenset({errno.ENOENT, errno.EBADF, errno.ESTALE})
"""What another host's removal looks like. JuiceFS says EBADF of a directory that was open and is no more."""
LOOK_AGAIN, LOOKS = 0.2, 20
"""Seconds between looks at a file that must be there."""


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
        try:
            # The kernel may still have a name that another host has removed; opening asks the metadata engine.
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            raise GenerationMissing(
                f"Generation {number} of workspace {self.directory.name} is not on this volume: is the host's "
                "metadata engine the one that wrote it?"
            ) from None
        return path

    def numbers(self) -> list[int]:
        """The published generations, in order."""
        return sorted(n for name in _names(self.directory) if (n := layout.generation_number(name)) is not None)

    def begin(self, vm_id: str, parent: Path, size: int) -> Path:
        """A draft with the bytes of `parent`, `size` bytes long (never shorter). Leftovers of the VM's are removed."""
        self._remove_drafts(vm_id)
        path = self.new_draft(vm_id)
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

    def new_draft(self, vm_id: str) -> Path:
        """A name for one."""
        return self.directory / layout.draft_name(vm_id, secrets.token_hex(4))

    def _remove_drafts(self, vm_id: str) -> None:
        for name in _names(self.directory):
            if layout.draft_vm(name) == vm_id:
                (self.directory / name).unlink(missing_ok=True)

    def publish(self, draft: Path, *, above: int) -> int:
        """Make a draft, whose bytes are in the store already, the next generation; its number (> `above`)."""
        draft.chmod(layout.IMAGE_MODE)
        known = [n for name in _names(self.directory) for n in (_any_number(name),) if n is not None]
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
            with suppress(FileNotFoundError):  # a sweep elsewhere comes to the same end
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
        """All leases by VM. One that can't be read counts as holding everything: StorageUnavailable."""
        found = {}
        for name in _names(self.directory):
            if (vm_id := layout.lease_vm(name)) is not None:
                lease = self.read_lease(vm_id)
                if lease is not None:
                    found[vm_id] = lease
        return found

    def read_lease(self, vm_id: str) -> Lease | None:
        return _read(self.directory / layout.lease_name(vm_id), Lease)

    def end_lease(self, vm_id: str) -> None:
        """Forget a VM: its lease and its drafts. Idempotent."""
        self._remove_drafts(vm_id)
        (self.directory / layout.lease_name(vm_id)).unlink(missing_ok=True)

    def _leased(self) -> set[int]:
        return {number for lease in self.leases().values() for number in (lease.base, lease.parent)}

    # --- the manifest

    def manifest(self) -> Manifest | None:
        return _read(self.directory / layout.MANIFEST, Manifest)

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
        names = _names(self.directory)
        # In this order: a VM has its lease before its draft, and drops nothing that a lease holds.
        leases = self.leases()
        leased = {number for lease in leases.values() for number in (lease.base, lease.parent)}
        for name in names:
            path = self.directory / name
            if (vm_id := layout.draft_vm(name)) is not None and vm_id not in leases:
                path.unlink(missing_ok=True)
            elif (number := layout.dropped_number(name)) is not None:
                if number not in leased:
                    path.unlink(missing_ok=True)
                    continue
                with suppress(FileNotFoundError):  # who was dropping it has brought it back
                    path.rename(self.directory / layout.generation_name(number))

    def erase(self, deleted: Path) -> bool:
        """Remove a workspace that is marked as deleted, as far as no VM reads it; whether nothing is left.

        deleted: the directory through which it leaves.
        """
        self.sweep()
        if self.leases():
            self.drop(keep=(), below=1 << 62)
            return False
        deleted.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = deleted / f"{self.directory.name}.{secrets.token_hex(4)}"
        try:
            self.directory.rename(aside)
        except FileNotFoundError:  # another host was quicker
            return True
        remove_tree(aside)
        return True


def every(mount: Path) -> list[Generations]:
    """All workspaces of a volume, by id; also those that are marked as deleted."""
    top = mount / layout.WORKSPACES
    return [Generations(path) for path in sorted(top.iterdir()) if is_id(path.name)] if top.is_dir() else []


def remove_tree(directory: Path) -> None:
    """As rm -rf, also when another host does the same: what that one removes is none of our errors."""

    def failed(_function: object, _path: str, info: tuple[type[BaseException], BaseException, object]) -> None:
        error = info[1]
        if not isinstance(error, OSError) or error.errno not in GONE:
            raise error

    try:
        shutil.rmtree(directory, onerror=failed)
    except OSError as error:  # it does not pass on all
        if error.errno not in GONE:
            raise


def _read(path: Path, kind: type[T]) -> T | None:
    """What a file says; None if there is none.

    A file that another host has replaced may seem to be gone: for a second the kernel leads from its name to the old
    one. Only a listing, which comes from the metadata engine, tells that there is none.
    """
    for _ in range(LOOKS):
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except OSError as error:
            if error.errno not in GONE:
                raise
            if path.name not in _names(path.parent):
                return None
            time.sleep(LOOK_AGAIN)
        except msgspec.DecodeError as error:
            raise StorageUnavailable(f"The file {path} on the volume of the workspaces is damaged: {error}.") from error
    raise StorageUnavailable(f"The file {path} on the volume of the workspaces can't be read now.")


def _names(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in directory.iterdir()]
    except OSError as error:
        if error.errno in GONE:
            return []
        raise


def _any_number(name: str) -> int | None:
    number = layout.generation_number(name)
    return number if number is not None else layout.dropped_number(name)
