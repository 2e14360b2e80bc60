"""Sleep: a running machine's memory and devices, saved into its directory; and the way back.

    running --copy_base--> (its base lies in DIRECTORY/memory) --save--> asleep: no process, three files
    asleep --wake--> running;   asleep --(an unusable file)--> SnapshotUnusable: boot it from its disk instead

A clone maps its template's memory privately: the kernel knows which pages are the VM's own (pagemap, see
Documentation/admin-guide/mm/pagemap.rst of Linux). So the base is copied while the VM still runs, and in the moment of
sleep only the VM's own pages are written over the copy: some 20 MB instead of all its memory. A VM that wakes maps that
file privately in its turn; at its next sleep the file is its own and is written in place.

The devices' state comes from `xen-save-devices-state`, which leaves all RAM out; it lacks the section that names the
machine, which is put in.

    DIRECTORY/memory       the guest's memory, sparse
    DIRECTORY/devices      state of the rest of the machine
    DIRECTORY/asleep.json  `Meta`: written last, removed before the guest runs again. Without it nothing is asleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mags.host.vmm.driver import SnapshotUnusable, VmmError
from mags.kit.files import write_atomic

if TYPE_CHECKING:
    from mags.host.vmm.qemu.vm import QemuVm

MEMORY, DEVICES, META, OVERLAY = "memory", "devices", "asleep.json", "work.qcow2"
PAGE = os.sysconf("SC_PAGE_SIZE")
TOP_BYTE, PRESENT, SWAPPED, FILE_OR_SHARED = 7, 0x80, 0x40, 0x20
"""Of a pagemap entry (8 bytes, little-endian): its highest byte, and bits of that. A page that is there (or in swap)
and not the file's is the process's own."""
_OWN = bytes(bool(byte & (PRESENT | SWAPPED)) and not byte & FILE_OR_SHARED for byte in range(256))
_RUNS = re.compile(rb"\x01+(?:\x00{1,4}\x01+)*")
"""Short gaps are written too, with what the file has there anyway: that is quicker than to seek."""
HEADER = b"QEVM\x00\x00\x00\x03"
"""Magic number and version of a saved state (migration/savevm.c of QEMU)."""
CONFIGURATION = b"\x07" + struct.pack(">I", len(b"microvm")) + b"microvm"
"""QEMU_VM_CONFIGURATION: the section that names the machine type."""
FICLONE = 0x40049409
CHUNK = 1 << 20
SAVE_TIMEOUT = 60.0
_switch = threading.Lock()
"""Held while META is changed or removed, so that what is removed is not flushed a moment later. Never for long."""


class Meta(msgspec.Struct, frozen=True):
    """boot_id: of the host's kernel; files that were not yet flushed are worth nothing after its restart."""

    version: str
    accelerator: str
    size: int
    mtime_ns: int
    devices_sha256: str
    boot_id: str
    flushed: bool
    saved_at: float


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the process's address space that maps the guest's memory at `offset` of its file."""

    start: int
    end: int
    offset: int
    inode: int


def is_asleep(directory: Path) -> bool:
    return (directory / META).exists()


async def forget(directory: Path) -> None:
    """The guest is to run again: what was saved must never be used a second time.

    What counts after a restart of the machine must be gone for good then: that takes as long as the disk needs to
    write. What was not flushed yet counts under this boot of the kernel only.
    """
    with _switch:
        durable = _flushed(directory)
        for name in (META, DEVICES):
            (directory / name).unlink(missing_ok=True)
    if durable:
        await asyncio.to_thread(_sync_directory, directory)


def _flushed(directory: Path) -> bool:
    try:
        return msgspec.json.decode((directory / META).read_bytes(), type=Meta).flushed
    except FileNotFoundError:
        return False
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return True  # it can't be read now; that it can't later is not sure


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def discard(directory: Path) -> None:
    """Remove all that was saved: the VM starts afresh."""
    await forget(directory)
    (directory / MEMORY).unlink(missing_ok=True)


async def copy_base(vm: QemuVm) -> None:
    """Copy what the VM's memory started from, while it runs. Harmless if repeated; VmmError if the disk is full."""
    if not vm.base_copied:
        await asyncio.to_thread(_copy_base, vm.pid, vm.spec.memory_mb << 20, vm.directory / MEMORY)
        vm.base_copied = True


async def save(vm: QemuVm) -> None:
    """Save and end a VM. When it can't be saved it runs on and VmmError says why."""
    await copy_base(vm)
    await vm.left_alone()
    await vm.pause()
    passed = ""
    try:
        devices = vm.directory / DEVICES
        devices.unlink(missing_ok=True)
        passed = await vm.pass_file(devices, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        await vm.process.unless_dead(
            vm.qmp.execute("xen-save-devices-state", timeout=SAVE_TIMEOUT, filename=passed, live=False)
        )
        _complete(devices)
        await asyncio.to_thread(_write_own_pages, vm.pid, vm.spec.memory_mb << 20, vm.directory / MEMORY)
        _write_meta(vm, flushed=False)
    except BaseException as error:
        for name in (META, DEVICES):
            with contextlib.suppress(OSError):
                (vm.directory / name).unlink()
        if not vm.died.done():
            await asyncio.shield(_go_on(vm, passed))
        if isinstance(error, OSError):
            raise VmmError(f"The VM's memory can't be saved: {_words(error)}") from error
        raise
    await vm.kill()


async def _go_on(vm: QemuVm, passed: str) -> None:
    """`passed`: the name of the file that QEMU was given, if it was."""
    await vm.resume()
    if passed:
        with contextlib.suppress(VmmError):
            await vm.qmp.execute("remove-fd", fdset_id=int(passed.rpartition("/")[2]))


async def flush(directory: Path) -> None:
    """Make what was saved outlive a restart of the machine. Harmless if it does already, or the VM has woken."""
    await asyncio.to_thread(_flush, directory)


def usable(directory: Path, *, version: str, accelerator: str, memory_bytes: int) -> None:
    """SnapshotUnusable (with the reason) unless the VM can wake from what lies in the directory."""
    try:
        meta = msgspec.json.decode((directory / META).read_bytes(), type=Meta)
        memory = (directory / MEMORY).stat()
        devices = (directory / DEVICES).read_bytes()
    except FileNotFoundError as error:
        raise SnapshotUnusable("There is no memory image of it.") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise VmmError(f"Its memory image can't be read now: {_words(error)}") from error
        raise SnapshotUnusable(f"Its memory image can't be read: {_words(error)}") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise SnapshotUnusable(f"Its memory image can't be read: {error}.") from error
    if (meta.version, meta.accelerator) != (version, accelerator):
        raise SnapshotUnusable(f"Its memory image was saved by QEMU {meta.version} ({meta.accelerator}).")
    if (memory.st_size, meta.size) != (memory_bytes, memory_bytes) or memory.st_mtime_ns != meta.mtime_ns:
        raise SnapshotUnusable("Its memory image is damaged: size or time is not what was written.")
    if hashlib.sha256(devices).hexdigest() != meta.devices_sha256:
        raise SnapshotUnusable("Its memory image is damaged: the devices' state is not what was written.")
    if not meta.flushed and meta.boot_id != boot_id():
        raise SnapshotUnusable("The machine was restarted before its memory image was safe on disk.")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


# --- the guest's memory in QEMU's address space -------------------------------------------------------------------


def _regions(pid: int, size: int) -> list[Region]:
    """Where the process maps the guest's memory: the private, writable file mapping of that size (or its parts)."""
    found: dict[int, list[Region]] = {}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw.p ([0-9a-f]+) \S+ (\d+)", line)
        if match is not None and match[4] != "0":
            start, end, offset = (int(match[number], 16) for number in (1, 2, 3))
            found.setdefault(int(match[4]), []).append(Region(start, end, offset, int(match[4])))
    for regions in found.values():
        if sum(region.end - region.start for region in regions) == size:
            return regions
    raise VmmError("The guest's memory is not to be found in its process.")


def _copy_base(pid: int, size: int, target: Path) -> None:
    try:
        region = _regions(pid, size)[0]
        if target.exists():
            if target.stat().st_ino == region.inode:
                return  # it woke from this file: the file is its base
            target.unlink()
        # The link leads to the mapped file also when its name is gone, as that of a template that was replaced.
        source = os.open(f"/proc/{pid}/map_files/{region.start:x}-{region.end:x}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            beside = target.with_name(f"{MEMORY}.new")
            _copy_sparse(source, beside, size)
            beside.replace(target)
        finally:
            os.close(source)
    except OSError as error:
        with contextlib.suppress(OSError):
            target.with_name(f"{MEMORY}.new").unlink()
        raise VmmError(f"The VM's memory can't be saved: {_words(error)}") from error


def _copy_sparse(source: int, target: Path, size: int) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.ioctl(descriptor, FICLONE, source)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL):
                raise
        os.ftruncate(descriptor, size)
        for start, end in _data(source, size):
            _copy_range(source, descriptor, start, end)
    finally:
        os.close(descriptor)


def _copy_range(source: int, target: int, position: int, end: int) -> None:
    while position < end:
        try:
            copied = os.copy_file_range(source, target, end - position, position, position)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            # The template lies in another file system than the VM.
            data = os.pread(source, min(CHUNK, end - position), position)
            copied = os.pwrite(target, data, position)
        if copied == 0:
            raise OSError(errno.EIO, "the guest's memory is shorter than it should be")
        position += copied


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a sparse file that hold data."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def _write_own_pages(pid: int, size: int, target: Path) -> None:
    """Write the pages that belong to the process alone over the copy of its base."""
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    output = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for region in _regions(pid, size):
            for first, last in _own_runs(pagemap, region):
                for page in range(first, last, CHUNK // PAGE):
                    start = region.start + page * PAGE
                    count = min(last - page, CHUNK // PAGE) * PAGE
                    data = os.pread(memory, count, start)
                    if len(data) != count:
                        raise VmmError("The guest's memory could not be read.")
                    written = os.pwrite(output, data, region.offset + page * PAGE)
                    if written != count:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        for descriptor in (memory, pagemap, output):
            os.close(descriptor)


def _own_runs(pagemap: int, region: Region) -> Iterator[tuple[int, int]]:
    """Runs [first, last) of the region's pages that are the process's own."""
    count = (region.end - region.start) // PAGE
    raw = os.pread(pagemap, count * 8, region.start // PAGE * 8)
    if len(raw) != count * 8:
        raise VmmError("The guest's page map could not be read.")
    for run in _RUNS.finditer(raw[TOP_BYTE::8].translate(_OWN)):
        yield run.span()


# --- what lies on disk --------------------------------------------------------------------------------------------


def _complete(devices: Path) -> None:
    state = devices.read_bytes()
    if not state.startswith(HEADER):
        raise VmmError("QEMU saved its devices in a form that is not known.")
    devices.write_bytes(HEADER + CONFIGURATION + state[len(HEADER) :])


def _write_meta(vm: QemuVm, *, flushed: bool) -> None:
    memory = (vm.directory / MEMORY).stat()
    digest = hashlib.sha256((vm.directory / DEVICES).read_bytes()).hexdigest()
    version, accelerator = vm.origin
    meta = Meta(version, accelerator, memory.st_size, memory.st_mtime_ns, digest, boot_id(), flushed, time.time())
    write_atomic(vm.directory / META, msgspec.json.encode(meta))


def _flush(directory: Path) -> None:
    try:
        meta = msgspec.json.decode((directory / META).read_bytes(), type=Meta)
        if meta.flushed or meta.boot_id != boot_id():
            return  # it is safe; or it was not when the machine went down, and is worth nothing
        for name in (MEMORY, DEVICES, OVERLAY):
            descriptor = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        with _switch:
            # It may have woken, and even fallen asleep again.
            descriptor = os.open(directory / META, os.O_RDWR | os.O_CLOEXEC)
            try:
                if msgspec.json.decode(os.pread(descriptor, 1 << 16, 0), type=Meta) == meta:
                    _overwrite(descriptor, msgspec.structs.replace(meta, flushed=True))
            except BaseException:
                os.close(descriptor)
                raise
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _sync_directory(directory)
    except FileNotFoundError:
        return  # it woke


def _overwrite(descriptor: int, meta: Meta) -> None:
    """In place, never by a new file: a VM that wakes in this moment removes the name for good."""
    data = msgspec.json.encode(meta)
    # One character shorter at most ("true" for "false"): padded, so that one write replaces all.
    os.pwrite(descriptor, data + b" " * max(0, os.fstat(descriptor).st_size - len(data)), 0)


def _words(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the host's disk is full."
    return f"{error.strerror or error}."
