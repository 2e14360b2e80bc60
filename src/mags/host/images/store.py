"""The cache of images: what is there, under which key, and how one is put in place.

    CACHE/images/NAME/{meta.json, rootfs-KEY.raw}   one image; meta.json names the current file
    CACHE/kernel/KEY/{vmlinux, modules.dep, mods/}  the kernel for all images
    CACHE/initramfs/KEY.cpio                        the agent and the modules
    CACHE/blank/ext4-SIZE.raw                       empty work disks
    CACHE/downloads/                                the wheel
    CACHE/locks/                                    one builder of each thing at a time

A new build of an image lies beside the old one under its own name until meta.json is replaced, so a reader sees
the old or the new; a VM that runs on the old file keeps it open.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mags.host.images import filesystem, firmware
from mags.host.images.errors import ImageError, ImageInvalid, ImageMissing
from mags.host.images.wheel import file_sha256
from mags.kit.files import write_atomic
from mags.kit.locks import exclusive

Progress = Callable[[str], None]
"""Told one short line at each step of a build."""

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
BUILD_TIMEOUT = 1800.0
"""Seconds to wait for another process that builds the same thing."""
GIB = 1 << 30


class Image(msgspec.Struct, frozen=True):
    """One root file system. `key` is the SHA-256 of the file, `missing` the wanted packages it lacks."""

    name: str
    key: str
    size: int
    source: str
    built_at: str
    file: str
    packages: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What a VM boots from. `key` covers the content of all three."""

    kernel: Path
    initramfs: Path
    rootfs: Path
    key: str


class ImageStore:
    """cache: the directory described above. agent: the guest agent's binary, made PID 1 of every VM."""

    def __init__(self, cache: Path, agent: Path) -> None:
        self.cache, self.agent = cache, agent
        self._boot: dict[str, BootFiles] = {}
        self._agent: tuple[tuple[int, int, int], str] | None = None

    def list(self) -> list[Image]:
        """All images, by name."""
        found = (self._read(path.parent.name) for path in sorted(self.cache.glob("images/*/meta.json")))
        return [image for image in found if image is not None]

    def find(self, name: str) -> Image:
        """ImageMissing if there is none of that name."""
        image = self._read(name) if NAME.fullmatch(name) else None
        if image is None:
            raise ImageMissing(name)
        return image

    async def remove(self, name: str) -> None:
        """Forget an image. VMs that run on it go on."""
        self.find(name)
        async with self.locked(f"image-{name}"):
            directory = self.cache / "images" / name
            # First the record: what is left after a crash is then an unnamed file, removed by the next build.
            (directory / "meta.json").unlink(missing_ok=True)
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    def key(self, name: str) -> str:
        """Covers the content of what `boot_files` gives."""
        status = self.agent.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if self._agent is None or self._agent[0] != stamp:
            self._agent = (stamp, file_sha256(self.agent))
        return f"{self.find(name).key[:32]}-{self._agent[1][:16]}-{firmware.kernel_key()}"

    async def boot_files(self, name: str) -> BootFiles:
        """Kernel, initramfs and root file system for a VM with this image."""
        key = self.key(name)
        known = self._boot.get(name)
        if known is None or known.key != key or not known.initramfs.exists():
            async with self.locked("kernel"):
                kernel = await firmware.kernel(self.cache)
                initramfs = await asyncio.to_thread(firmware.initramfs, self.cache, kernel, self.agent)
            known = BootFiles(kernel / "vmlinux", initramfs, self.path(self.find(name)), key)
            self._boot[name] = known
        return known

    async def blank(self, disk_gb: int) -> Path:
        """A raw image of an empty work disk of that many GiB; shared, so never write to it."""
        target = self.cache / "blank" / f"ext4-{disk_gb}G.raw"
        if target.exists():
            return target
        async with self.locked(f"blank-{disk_gb}"):
            if not target.exists():
                async with self.workspace() as scratch:
                    (scratch / "tree").mkdir()
                    await filesystem.make_blank(scratch / "disk", disk_gb * GIB, scratch / "tree")
                    (scratch / "disk").chmod(0o444)
                    target.parent.mkdir(exist_ok=True)
                    (scratch / "disk").replace(target)
        return target

    def path(self, image: Image) -> Path:
        return self.cache / "images" / image.name / image.file

    @asynccontextmanager
    async def locked(self, what: str) -> AsyncIterator[None]:
        """One process at a time may build `what`."""
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(exclusive(self.cache / "locks" / what, timeout=BUILD_TIMEOUT))
            except TimeoutError as error:
                raise ImageError(f"Another program has been at work on {what} for too long.") from error
            yield

    @asynccontextmanager
    async def workspace(self) -> AsyncIterator[Path]:
        """An empty directory on the cache's file system, removed at the end."""
        path = self.cache / "tmp" / f"{os.getpid()}-{secrets.token_hex(4)}"
        await asyncio.to_thread(self._sweep)
        path.mkdir(parents=True)
        try:
            yield path
        finally:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def publish(self, rootfs: Path, image: Image) -> Image:
        """Put a finished file in place as the current one of its name. The caller holds the image's lock."""
        key = await asyncio.to_thread(file_sha256, rootfs)
        image = msgspec.structs.replace(image, key=key, size=rootfs.stat().st_size, file=f"rootfs-{key[:16]}.raw")
        target = self.path(image)
        target.parent.mkdir(parents=True, exist_ok=True)
        rootfs.chmod(0o444)
        rootfs.replace(target)
        write_atomic(target.with_name("meta.json"), msgspec.json.encode(image), mode=0o644)
        for old in target.parent.glob("rootfs-*.raw"):
            if old != target:
                old.unlink()
        return image

    def _read(self, name: str) -> Image | None:
        try:
            image = msgspec.json.decode((self.cache / "images" / name / "meta.json").read_bytes(), type=Image)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return image if self.path(image).exists() else None

    def _sweep(self) -> None:
        """Remove what builders left that were killed."""
        for path in self.cache.glob("tmp/*-*"):
            pid = path.name.partition("-")[0]
            if pid.isdigit() and not Path("/proc", pid).exists():
                shutil.rmtree(path, ignore_errors=True)


def check_name(name: str) -> str:
    """The name, if an image may have it."""
    if not NAME.fullmatch(name):
        raise ImageInvalid(f"{name!r} is no image name: use lower case letters, digits, '.', '_' and '-'.")
    return name
