"""File handles: what the kernel needs to open a file by number, signed for one export.

    handle = MAC (16 bytes) || type (4 bytes) || the kernel's handle (name_to_handle_at(2), 12 bytes on FUSE)

The kernel's handle holds the file's number on the volume, so handles outlive restarts of this program and of the
mount. A guest cannot make one: the MAC covers the export's name too.
"""

from __future__ import annotations

import ctypes
import errno
import hmac
import os
import struct

from mags.host.jfs.protocol import HANDLE_LIMIT, Refusal, Status

AT_EMPTY_PATH = 0x1000
MAC_LENGTH = 16
KERNEL_LIMIT = HANDLE_LIMIT - MAC_LENGTH - 4

_libc = ctypes.CDLL(None, use_errno=True)


class _FileHandle(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint), ("type", ctypes.c_int), ("bytes", ctypes.c_ubyte * KERNEL_LIMIT)]


class Handles:
    """Handles of one export. `root`: a descriptor on the file system; `key`: 32 secret bytes of this host."""

    def __init__(self, root: int, key: bytes, export: str) -> None:
        self._root, self._key = root, hmac.digest(key, b"mags-jfs:" + export.encode(), "sha256")

    def of(self, descriptor: int) -> bytes:
        """The handle of an open file (O_PATH will do)."""
        kernel = _FileHandle(length=KERNEL_LIMIT)
        mount = ctypes.c_int()
        if _libc.name_to_handle_at(descriptor, b"", ctypes.byref(kernel), ctypes.byref(mount), AT_EMPTY_PATH) != 0:
            raise _error()
        body = struct.pack(">i", kernel.type) + bytes(kernel.bytes[: kernel.length])
        return self._mac(body) + body

    def open(self, handle: bytes, flags: int) -> int:
        """A new descriptor of the file. Refusal BADHANDLE if the handle is not ours, STALE if the file is gone."""
        body = handle[MAC_LENGTH:]
        if len(body) < 5 or not hmac.compare_digest(handle[:MAC_LENGTH], self._mac(body)):
            raise Refusal(Status.BADHANDLE)
        number = len(body) - 4
        kernel = _FileHandle(length=number, type=struct.unpack_from(">i", body)[0])
        ctypes.memmove(kernel.bytes, body[4:], number)
        descriptor = int(_libc.open_by_handle_at(self._root, ctypes.byref(kernel), flags | os.O_CLOEXEC))
        if descriptor < 0:
            error = _error()
            raise Refusal(Status.STALE) if error.errno in (errno.ESTALE, errno.ENOENT) else error
        return descriptor

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:MAC_LENGTH]


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
