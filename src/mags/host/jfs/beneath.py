"""System calls on names and descriptors that Python lacks or that follow links where we must not."""

from __future__ import annotations

import ctypes
import os
import struct

from mags.host.jfs.protocol import NAME_LIMIT, Refusal, Status

SYS_OPENAT2 = 437
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 1, 2, 4, 8
AT_EMPTY_PATH = 0x1000
UTIME_OMIT, UTIME_NOW = (1 << 30) - 2, (1 << 30) - 1

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64)]


def check_name(name: bytes) -> bytes:
    """A name of a directory entry: one component that is none of the special ones. Refusal otherwise."""
    if len(name) > NAME_LIMIT:
        raise Refusal(Status.NAMETOOLONG)
    if not name or b"/" in name or b"\0" in name:
        raise Refusal(Status.INVAL)
    if name in (b".", b".."):
        raise Refusal(Status.EXIST)
    return name


def open_beneath(directory: int, name: bytes, flags: int, mode: int = 0) -> int:
    """openat2(2) of one name: never a link, never out of the directory, never into another mount."""
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode, resolve)
    found = int(_libc.syscall(SYS_OPENAT2, directory, name, how, len(how)))
    if found < 0:
        raise _error()
    return found


def proc_path(descriptor: int) -> str:
    """A name for what a descriptor is open on. For a symbolic link it means the link's target: do not use it then."""
    return f"/proc/self/fd/{descriptor}"


def chown(descriptor: int, uid: int, gid: int) -> None:
    """fchownat(2) on the descriptor itself, also if it is of a symbolic link. -1 leaves one as it is."""
    if _libc.fchownat(
        descriptor, b"", ctypes.c_uint32(uid & 0xFFFFFFFF), ctypes.c_uint32(gid & 0xFFFFFFFF), AT_EMPTY_PATH
    ):
        raise _error()


def set_times(descriptor: int, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """utimensat(2) on the descriptor itself: seconds and nanoseconds, or UTIME_NOW, UTIME_OMIT."""
    times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    if _libc.utimensat(descriptor, b"", times, AT_EMPTY_PATH):
        raise _error()


def read_link(descriptor: int) -> bytes:
    """The target of a symbolic link that is open with O_PATH."""
    return os.readlink(b"", dir_fd=descriptor)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
