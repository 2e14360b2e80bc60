"""Directories and names in a VM. (Bytes of files travel in sessions.)"""

from __future__ import annotations

from typing import Literal, cast

from mags.host.guest import Entry
from mags.host.machines.machine import Machine
from mags.protocol.errors import Problem
from mags.protocol.messages import FileEntry, Files, FilesResult


async def handle(machine: Machine, wish: Files) -> FilesResult:
    """Problem, GuestError, ChannelClosed."""
    check_path(wish.path)
    async with machine.use() as cell:
        channel = cell.channel
        match wish.action:
            case "list":
                return FilesResult(entries=[_entry(entry) for entry in await channel.list_directory(wish.path)])
            case "stat":
                return FilesResult(entries=[_entry(await channel.stat(wish.path))])
            case "remove":
                await channel.remove(wish.path, wish.recursive)
            case "mkdir":
                await channel.make_directory(wish.path, wish.mode, parents=True)
        return FilesResult()


def check_path(path: str) -> None:
    """Problem(invalid) unless it is an absolute path that a guest can be asked for."""
    if not path.startswith("/") or "\0" in path or len(path.encode("utf-8", "surrogateescape")) > 4095:
        raise Problem("invalid", "A path must be absolute (begin with /) and have at most 4095 bytes.")


def _entry(entry: Entry) -> FileEntry:
    kind = {"symlink": "link"}.get(entry.type, entry.type)
    return FileEntry(
        name=_text(entry.name),
        type=cast(Literal["file", "directory", "link", "other"], kind),
        size=entry.size,
        mode=entry.permissions,
        uid=entry.uid,
        gid=entry.gid,
        modified_ms=entry.mtime_ns // 1_000_000,
        target=_text(entry.target) if entry.type == "symlink" else None,
    )


def _text(name: str) -> str:
    """Names are bytes in the guest; what is no UTF-8 becomes U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
