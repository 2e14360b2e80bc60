"""Trees of files from archives: plain tars, and images in the OCI image layout (image-spec, image-layout.md)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
from pathlib import Path, PurePosixPath

import msgspec

from mags.host.images.errors import ImageInvalid
from mags.host.images.unpack import REFUSED

SIZE_LIMIT = 64 << 30
"""Bytes of files that an image may hold."""
UNPACK_TIMEOUT = 1800
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MANIFEST_LIMIT = 4 << 20
LINKS_LIMIT = 40
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MOUNT_POINTS = ("dev", "proc", "sys", "run", "tmp", "root", "etc", "jfs")
"""Directories that the agent expects in every image."""


class Platform(msgspec.Struct):
    architecture: str = ""
    os: str = "linux"


class Descriptor(msgspec.Struct):
    digest: str
    size: int
    mediaType: str = ""
    platform: Platform | None = None


class Manifest(msgspec.Struct):
    """An image index has `manifests`, an image manifest `layers`."""

    manifests: list[Descriptor] = []
    layers: list[Descriptor] = []


def layers(directory: Path, machine: str) -> list[Path]:
    """The layers of the image for this machine's architecture, lowest first, each with its hash checked."""
    if not (directory / "oci-layout").is_file():
        raise ImageInvalid(f"{directory} is not in the OCI image layout: it has no file oci-layout.")
    manifest = _decode(directory / "index.json")
    for _ in range(4):  # an index may hold an index
        if not manifest.manifests:
            break
        manifest = _decode(_blob(directory, _choose(manifest.manifests, ARCHITECTURES.get(machine, machine))))
    if not manifest.layers:
        raise ImageInvalid("The image has no layers.")
    return [_blob(directory, layer) for layer in manifest.layers]


async def unpack(archive: Path, tree: Path, *, layer: bool = False, limit: int = SIZE_LIMIT) -> None:
    """Unpack into `tree` (made if missing) by a confined process; ImageInvalid says why it refused."""
    tree.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mags.host.images.unpack", str(tree), "--limit", str(limit)]
    with archive.open("rb") as file:
        # Not `read`, which would move the position that the child shares.
        if os.pread(file.fileno(), 4, 0) == ZSTD_MAGIC:
            raise ImageInvalid(f"{archive.name} is compressed with zstd; give it as tar or tar.gz.")
        process = await asyncio.create_subprocess_exec(
            *command,
            *(["--layer"] if layer else []),
            stdin=file,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    try:
        async with asyncio.timeout(UNPACK_TIMEOUT):
            _, said = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines() or ["It said nothing."]
        words = lines[-1] if process.returncode == REFUSED else f"Unpacking failed: {lines[-1]}"
        raise ImageInvalid(words)


def has_shell(tree: Path) -> bool:
    """Whether /bin/sh is there, following links as the guest would: never out of the tree."""
    todo, at, links = ["bin", "sh"], PurePosixPath("/"), 0
    while todo:
        part = todo.pop(0)
        at = at.parent if part == ".." else at / part
        here = tree / at.relative_to("/")
        if here.is_symlink():
            target = PurePosixPath(here.readlink())
            at = PurePosixPath("/") if target.is_absolute() else at.parent
            todo = [each for each in target.parts if each != "/"] + todo
            links += 1
        if links > LINKS_LIMIT:
            return False
    return (tree / at.relative_to("/")).is_file()


def make_mount_points(tree: Path) -> None:
    """The agent mounts on directories of the read-only image: they must be there, and be directories."""
    for name in MOUNT_POINTS:
        path = tree / name
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            path.unlink()
        path.mkdir(mode=0o755, exist_ok=True)


def _choose(descriptors: list[Descriptor], architecture: str) -> Descriptor:
    for descriptor in descriptors:
        platform = descriptor.platform
        if platform is None or (platform.os == "linux" and platform.architecture == architecture):
            return descriptor
    raise ImageInvalid(f"The image has no variant for linux/{architecture}.")


def _blob(directory: Path, descriptor: Descriptor) -> Path:
    found = DIGEST.fullmatch(descriptor.digest)
    if found is None:
        raise ImageInvalid(f"The digest {descriptor.digest!r} is not a SHA-256.")
    path = directory / "blobs" / "sha256" / found[1]
    if not path.is_file():
        raise ImageInvalid(f"The image lacks its part {descriptor.digest}.")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != found[1]:
            raise ImageInvalid(f"The image's part {descriptor.digest} is damaged.")
    return path


def _decode(path: Path) -> Manifest:
    if not path.is_file() or path.stat().st_size > MANIFEST_LIMIT:
        raise ImageInvalid(f"{path.name} is missing or too large.")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except msgspec.DecodeError as error:
        raise ImageInvalid(f"{path.name} is not a manifest: {error}.") from error
