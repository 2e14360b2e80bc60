"""Empty disks: one formatted image of each size on the volume, the start of every new workspace."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from mags.host.images.filesystem import make_blank
from mags.host.storage import copies, layout


async def make(target: Path, size: int, scratch: Path, work: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
    """Make the blank of `size` bytes at `target` on the volume; fine if another host is quicker.

    scratch: a local directory for the formatting, which writes too scattered for a network file system.
    work: runs a function in a thread for work on the volume.
    """
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        tree = Path(directory, "tree")
        tree.mkdir()
        image = Path(directory, "image")
        await make_blank(image, size, tree)
        await work(lambda: _bring(image, target))


def _bring(image: Path, target: Path) -> None:
    target.parent.mkdir(mode=layout.DIRECTORY_MODE, parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=target.parent)
    try:
        try:
            copies.copy_in(image, descriptor)
            os.fchmod(descriptor, layout.IMAGE_MODE)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        copies.rename_new(Path(beside), target)
    except FileExistsError:
        pass
    finally:
        Path(beside).unlink(missing_ok=True)
