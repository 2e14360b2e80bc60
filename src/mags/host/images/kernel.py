"""The kernel as QEMU boots it fastest, and its modules in load order.

A distribution's `vmlinuz` is a bzImage: a small loader with the gzipped ELF image inside. The ELF image has a PVH
entry point, which QEMU starts directly: no decompression by the (perhaps emulated) guest.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from mags.host.images.errors import ImageInvalid

GZIP_MAGIC = b"\x1f\x8b\x08"
ELF_MAGIC = b"\x7fELF"
VMLINUX_LIMIT = 256 << 20
"""Bytes; far above any kernel, so that a broken one cannot fill the memory."""

BOOT_MODULES = ("ext4", "virtio_blk", "virtio_net", "overlay")
"""Loaded by the agent before it says hello."""
NFS_MODULES = ("nfs", "nfsv3")
"""Loaded when /jfs is mounted."""


def extract_vmlinux(bzimage: bytes) -> bytes:
    """The ELF image inside a bzImage. ImageInvalid when there is none that is gzipped."""
    at = bzimage.find(GZIP_MAGIC)
    while at >= 0:
        inflate = zlib.decompressobj(31)
        try:
            image = inflate.decompress(bzimage[at:], VMLINUX_LIMIT)
        except zlib.error:
            image = b""
        if inflate.eof and image.startswith(ELF_MAGIC):
            return image
        at = bzimage.find(GZIP_MAGIC, at + 1)
    raise ImageInvalid("The kernel holds no gzipped ELF image.")


def load_order(modules_dep: str, wanted: Iterable[str], loaded: Sequence[str] = ()) -> list[str]:
    """Paths (relative to the modules' directory) of the wanted modules and what they need, needed ones first.

    modules_dep: text of depmod's `modules.dep`: `path: dependency...`, each dependency before what it depends on
        when read from the right. A wanted module that is missing in it is taken to be built into the kernel.
    loaded: paths that are there already.
    """
    needs: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
        by_name[module_name(path)] = path
    order: list[str] = []
    for name in wanted:
        path = by_name.get(name, "")
        if not path:
            continue
        for each in [*reversed(needs[path]), path]:
            if each not in order and each not in loaded:
                order.append(each)
    return order


def module_name(path: str) -> str:
    """`kernel/fs/ext4/ext4.ko.gz` -> `ext4`."""
    return PurePosixPath(path).name.partition(".")[0].replace("-", "_")
