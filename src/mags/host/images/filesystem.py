"""ext4 file systems, made from a tree of files or empty. All by e2fsprogs; nothing is ever mounted on the host."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from mags.kit.process import run

BLOCK = 4096
SLACK = 32 << 20
"""Bytes of an image beyond its files: metadata, and the rounding of e2fsprogs."""
WORK_DIRECTORIES = ("upper", "work")
"""What the agent lays over the image; made ahead, so that a first boot writes less."""


async def make_image(tree: Path, target: Path) -> None:
    """A read-only root file system of the files in `tree`, no larger than needed, no journal."""
    size, files = await asyncio.to_thread(_measure, tree)
    await asyncio.to_thread(_sparse, target, size + size // 10 + SLACK)
    command = ["mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(BLOCK), "-N", str(files + 1024)]
    command += ["-O", "^has_journal,^resize_inode", "-L", "image", "-d", str(tree), str(target)]
    await run(command, timeout=600)


async def make_blank(target: Path, size: int, scratch: Path) -> None:
    """An empty work disk of `size` bytes (a sparse file of a few MB). `scratch`: a directory that may be filled."""
    for name in WORK_DIRECTORIES:
        (scratch / name).mkdir(mode=0o755)
    await asyncio.to_thread(_sparse, target, size)
    # Told that the file's holes read as zeros, mkfs marks the inode tables as zeroed: no guest writes them again.
    command = ["mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(BLOCK), "-L", "work"]
    command += ["-E", "discard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"]
    await run([*command, "-d", str(scratch), str(target)], timeout=120)


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(-(-size // BLOCK) * BLOCK)


def _measure(tree: Path) -> tuple[int, int]:
    """Bytes on disk (whole blocks, hard links once) and the number of files."""
    size = files = 0
    seen: set[int] = set()
    for directory, _, names in os.walk(tree):
        for path in (directory, *(f"{directory}/{name}" for name in names)):
            status = os.lstat(path)
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                files += 1
                size += (-(-status.st_size // BLOCK) + 1) * BLOCK
    return size, files
