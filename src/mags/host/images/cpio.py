"""An initramfs: a cpio archive in the `newc` format (Linux, early-userspace/buffer-format.rst).

Written here because an archive made by cpio(1) carries inode numbers and times of the machine it was made on; this
one depends on its content alone, so that equal content gives an equal template key.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a directory when `data` is None. `path` without a leading slash; parents come first."""

    path: str
    data: bytes | None
    mode: int = 0o755


def archive(entries: Iterable[Entry]) -> bytes:
    """All entries, owned by root, dated 1970, in the order given."""
    out = bytearray()
    for number, entry in enumerate(entries, start=1):
        kind = stat.S_IFDIR if entry.data is None else stat.S_IFREG
        _append(out, number, entry.path, kind | entry.mode, entry.data or b"")
    _append(out, 0, "TRAILER!!!", 0, b"")
    return bytes(out)


def _append(out: bytearray, number: int, path: str, mode: int, data: bytes) -> None:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += data
    out += bytes(-len(out) % 4)
