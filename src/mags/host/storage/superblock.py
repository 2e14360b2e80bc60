"""How full an ext4 image is, from its superblock (Linux, Documentation/filesystems/ext4/super.rst). Pure."""

from __future__ import annotations

import struct

OFFSET, SIZE = 1024, 1024
MAGIC = 0xEF53


def used_bytes(data: bytes) -> int | None:
    """Bytes in use, from the 1024 bytes at offset 1024 of the image; None if it is no ext4 file system.

    A freeze writes the counters, so they are true for a generation.
    """
    if len(data) < SIZE or struct.unpack_from("<H", data, 0x38)[0] != MAGIC:
        return None
    blocks, free, log_size = (struct.unpack_from("<I", data, at)[0] for at in (0x04, 0x0C, 0x18))
    if struct.unpack_from("<I", data, 0x60)[0] & 0x80:  # INCOMPAT_64BIT: the upper halves count
        blocks |= struct.unpack_from("<I", data, 0x150)[0] << 32
        free |= struct.unpack_from("<I", data, 0x158)[0] << 32
    if log_size > 6 or free > blocks:
        return None
    return int((blocks - free) * (1024 << log_size))
