"""The guest's memory in QEMU's address space, copied and written into a file; and whether that file is still the same.

A clone maps its template's memory privately: the kernel knows which pages are the VM's own (pagemap, see
Documentation/admin-guide/mm/pagemap.rst of Linux). All functions block: they belong in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mags.host.vmm.driver import VmmError

PAGE = os.sysconf("SC_PAGE_SIZE")
TOP_BYTE, PRESENT, SWAPPED, FILE_OR_SHARED = 7, 0x80, 0x40, 0x20
"""Of a pagemap entry (8 bytes, little-endian): its highest byte, and bits of that. A page that is there (or in swap)
and not the file's is the process's own."""
_OWN = bytes(bool(byte & (PRESENT | SWAPPED)) and not byte & FILE_OR_SHARED for byte in range(256))
_RUNS = re.compile(rb"\x01+(?:\x00{1,4}\x01+)*")
"""Short gaps are written too, with what the file has there anyway: that is quicker than to seek."""
FICLONE = 0x40049409
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the process's address space that maps the guest's memory at `offset` of its file."""

    start: int
    end: int
    offset: int
    inode: int


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


def copy_base(pid: int, size: int, target: Path) -> None:
    """Copy the file that the process maps as its guest's memory (`size` bytes), unless it is `target` itself. VmmError
    if the disk is full."""
    try:
        region = _regions(pid, size)[0]
        if target.exists():
            if target.stat().st_ino == region.inode:
                return  # it woke from this file: the file is its base
            target.unlink()
        # The link leads to the mapped file also when its name is gone, as that of a template that was replaced.
        source = os.open(f"/proc/{pid}/map_files/{region.start:x}-{region.end:x}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            beside = target.with_name(f"{target.name}.new")
            _copy_sparse(source, beside, size)
            beside.replace(target)
        finally:
            os.close(source)
    except OSError as error:
        with contextlib.suppress(OSError):
            target.with_name(f"{target.name}.new").unlink()
        raise VmmError(f"The VM's memory can't be saved: {words(error)}") from error


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


def write_own_pages(pid: int, size: int, target: Path) -> None:
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


def checksum(path: Path, size: int) -> str:
    """CRC-32 of what the file holds and where, in 8 hexadecimal digits; the same however sparse it lies on its disk."""
    found, position = 0, 0
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, end in _data(descriptor, size):
            position = max(position, start // CHUNK * CHUNK)
            while position < end:
                data = os.pread(descriptor, min(CHUNK, size - position), position)
                if data != bytes(len(data)):
                    found = zlib.crc32(data, zlib.crc32(position.to_bytes(8), found))
                position += CHUNK
    finally:
        os.close(descriptor)
    return f"{found:08x}"


def words(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the host's disk is full."
    return f"{error.strerror or error}."
