"""Copies of disk images: by metadata where the file system can, else only what is not a hole. All calls block."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

STEP = 1 << 30
CHUNK = 4 << 20
RENAME_NOREPLACE = 1

_libc = ctypes.CDLL(None, use_errno=True)


def clone(source: Path, target: int) -> None:
    """Give the open, empty file `target` the bytes of `source`.

    copy_file_range(2) within one JuiceFS volume copies no data: both files refer to the same blocks (what `juicefs
    clone` does, without a process). Elsewhere the kernel copies.
    """
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        os.ftruncate(target, size)
        done = 0
        while done < size:
            try:
                moved = os.copy_file_range(descriptor, target, min(STEP, size - done), done, done)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                _copy_data(descriptor, target, done, size)
                return
            if moved == 0:
                raise OSError(errno.EIO, "the image is shorter than it was", str(source))
            done += moved
    finally:
        os.close(descriptor)


def copy_in(source: Path, target: int) -> None:
    """Give the open, empty file `target` the bytes of a sparse file elsewhere, holes left out."""
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        os.ftruncate(target, size)
        _copy_data(descriptor, target, 0, size)
    finally:
        os.close(descriptor)


def _copy_data(source: int, target: int, start: int, size: int) -> None:
    while start < size:
        try:
            start = os.lseek(source, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        while start < end:
            data = os.pread(source, min(CHUNK, end - start), start)
            if not data:
                raise OSError(errno.EIO, "the image is shorter than it was")
            if data.count(0) != len(data):
                write_all(target, data, start)
            start += len(data)


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """pwrite(2) until all is written."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def rename_new(source: Path, target: Path) -> None:
    """Rename, but never over something: FileExistsError if `target` is there (renameat2(2), RENAME_NOREPLACE)."""
    at_cwd = -100
    if _libc.renameat2(at_cwd, os.fsencode(source), at_cwd, os.fsencode(target), RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
