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
import hashlib
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mags.host.vmm.driver import SnapshotUnusable, VmmError
from mags.host.vmm.qemu import memory
from mags.kit.files import write_atomic

if TYPE_CHECKING:
    from mags.host.vmm.qemu.vm import QemuVm

MEMORY, DEVICES, META, OVERLAY = "memory", "devices", "asleep.json", "work.qcow2"
HEADER = b"QEVM\x00\x00\x00\x03"
"""Magic number and version of a saved state (migration/savevm.c of QEMU)."""
CONFIGURATION = b"\x07" + struct.pack(">I", len(b"microvm")) + b"microvm"
"""QEMU_VM_CONFIGURATION: the section that names the machine type."""
DEVICES_LIMIT = 16 << 20
"""Bytes; the state of a VM's devices has some 64 KiB."""
SAVE_TIMEOUT = 60.0
UNKNOWN = "-" * 8
_switch = threading.Lock()
"""Held while META is changed or removed, so that what is removed is not flushed a moment later. Never for long."""


class Meta(msgspec.Struct, frozen=True):
    """boot_id: of the host's kernel; files that were not yet flushed are worth nothing after its restart.
    memory_crc32: known once they are."""

    version: str
    accelerator: str
    size: int
    mtime_ns: int
    devices_sha256: str
    memory_crc32: str
    boot_id: str
    flushed: bool
    saved_at: float


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
        await _to_its_end(memory.copy_base, vm.pid, vm.spec.memory_mb << 20, vm.directory / MEMORY)
        vm.base_copied = True


async def save(vm: QemuVm) -> None:
    """Save and end a VM. When it can't be saved it runs on and VmmError says why."""
    await copy_base(vm)
    await vm.left_alone()
    passed = ""
    try:
        await vm.pause()
        devices = vm.directory / DEVICES
        devices.unlink(missing_ok=True)
        passed = await vm.pass_file(devices, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        await vm.process.unless_dead(
            vm.qmp.execute("xen-save-devices-state", timeout=SAVE_TIMEOUT, filename=passed, live=False)
        )
        _complete(devices)
        await _to_its_end(memory.write_own_pages, vm.pid, vm.spec.memory_mb << 20, vm.directory / MEMORY)
        _write_meta(vm)
    except BaseException as error:
        for name in (META, DEVICES):
            with contextlib.suppress(OSError):
                (vm.directory / name).unlink()
        if not vm.died.done():
            await asyncio.shield(_go_on(vm, passed))
        if isinstance(error, OSError):
            raise VmmError(f"The VM's memory can't be saved: {memory.words(error)}") from error
        raise
    await vm.kill()


async def _to_its_end(work: Callable[[int, int, Path], None], pid: int, size: int, target: Path) -> None:
    """In a thread. Who is cancelled waits for it: a thread that goes on would write into the next save."""
    thread = asyncio.ensure_future(asyncio.to_thread(work, pid, size, target))
    try:
        await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait({thread})
        raise


async def _go_on(vm: QemuVm, passed: str) -> None:
    """`passed`: the name of the file that QEMU was given, if it was."""
    await vm.resume()
    if passed:
        with contextlib.suppress(VmmError):
            await vm.qmp.execute("remove-fd", fdset_id=int(passed.rpartition("/")[2]))


async def flush(directory: Path) -> None:
    """Make what was saved outlive a restart of the machine. Harmless if it does already, or the VM has woken."""
    await asyncio.to_thread(_flush, directory)


async def check(directory: Path, *, version: str, accelerator: str, memory_bytes: int) -> None:
    """SnapshotUnusable (with the reason) unless the VM can wake from what lies in the directory.

    All of the memory is read only when the machine was restarted meanwhile: what comes back from a disk need not be
    what was written, and later the file would have to be read anyway.
    """
    meta = _usable(directory, version, accelerator, memory_bytes)
    if meta.boot_id != boot_id():
        if not meta.flushed:
            raise SnapshotUnusable("The machine was restarted before its memory image was safe on disk.")
        try:
            found = await asyncio.to_thread(memory.checksum, directory / MEMORY, memory_bytes)
        except OSError as error:
            raise _unreadable(error) from error
        if found != meta.memory_crc32:
            raise SnapshotUnusable("Its memory image is damaged: the memory is not what was written.")


def _usable(directory: Path, version: str, accelerator: str, memory_bytes: int) -> Meta:
    try:
        meta = msgspec.json.decode((directory / META).read_bytes(), type=Meta)
        image = (directory / MEMORY).stat()
        devices = _read_devices(directory / DEVICES)
    except FileNotFoundError as error:
        raise SnapshotUnusable("There is no memory image of it.") from error
    except OSError as error:
        raise _unreadable(error) from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise SnapshotUnusable(f"Its memory image can't be read: {error}.") from error
    if (meta.version, meta.accelerator) != (version, accelerator):
        raise SnapshotUnusable(f"Its memory image was saved by QEMU {meta.version} ({meta.accelerator}).")
    if (image.st_size, meta.size) != (memory_bytes, memory_bytes) or image.st_mtime_ns != meta.mtime_ns:
        raise SnapshotUnusable("Its memory image is damaged: size or time is not what was written.")
    if hashlib.sha256(devices).hexdigest() != meta.devices_sha256:
        raise SnapshotUnusable("Its memory image is damaged: the devices' state is not what was written.")
    return meta


def _unreadable(error: OSError) -> VmmError:
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return VmmError(f"Its memory image can't be read now: {memory.words(error)}")
    return SnapshotUnusable(f"Its memory image can't be read: {memory.words(error)}")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


# --- what lies on disk --------------------------------------------------------------------------------------------


def _read_devices(path: Path) -> bytes:
    """At most one byte more than is allowed: QEMU may have been taken over by its guest."""
    with path.open("rb") as file:
        return file.read(DEVICES_LIMIT + 1)


def _complete(devices: Path) -> None:
    state = _read_devices(devices)
    if len(state) > DEVICES_LIMIT:
        raise VmmError(f"QEMU saved more than {DEVICES_LIMIT >> 20} MiB as the state of its devices.")
    if not state.startswith(HEADER):
        raise VmmError("QEMU saved its devices in a form that is not known.")
    devices.write_bytes(HEADER + CONFIGURATION + state[len(HEADER) :])


def _write_meta(vm: QemuVm) -> None:
    image = (vm.directory / MEMORY).stat()
    digest = hashlib.sha256(_read_devices(vm.directory / DEVICES)).hexdigest()
    version, accelerator = vm.origin
    meta = Meta(
        version=version,
        accelerator=accelerator,
        size=image.st_size,
        mtime_ns=image.st_mtime_ns,
        devices_sha256=digest,
        memory_crc32=UNKNOWN,
        boot_id=boot_id(),
        flushed=False,
        saved_at=time.time(),
    )
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
        safe = msgspec.structs.replace(meta, flushed=True, memory_crc32=memory.checksum(directory / MEMORY, meta.size))
        with _switch:
            # It may have woken, and even fallen asleep again.
            descriptor = os.open(directory / META, os.O_RDWR | os.O_CLOEXEC)
            try:
                if msgspec.json.decode(os.pread(descriptor, 1 << 16, 0), type=Meta) == meta:
                    _overwrite(descriptor, safe)
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
