"""Templates: machines that were booted once and wait on disk to be cloned.

    STATE/templates/KEY/{ram, state, meta.json}

`ram` is the guest's memory, sparse, read-only: clones map it privately. `state` is the rest of the machine (64 KB).
KEY covers everything that could make a restore differ. A template is made under another name and renamed when whole;
one that does not match its own record is made anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mags.host.vmm.qemu.machine import CPU, DEVICES, Hypervisor, kernel_arguments
from mags.host.vmm.spec import VmSpec
from mags.kit.files import write_atomic

LOCKS = ".locks"


class Meta(msgspec.Struct, frozen=True):
    """Read back to see that the files are the ones that were written.

    disk_bytes: size of the work disk that the guest saw.
    """

    key: str
    shape: str
    ram_size: int
    ram_mtime_ns: int
    state_sha256: str
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Template:
    directory: Path
    key: str
    disk_bytes: int

    @property
    def ram(self) -> Path:
        return self.directory / "ram"

    @property
    def state(self) -> Path:
        return self.directory / "state"


def template_key(spec: VmSpec, hypervisor: Hypervisor, accelerator: str, boot_key: str) -> str:
    """boot_key: covers kernel, initramfs (with the agent) and image."""
    parts = [DEVICES, CPU, hypervisor.version, accelerator, kernel_arguments(accelerator), boot_key]
    parts += [spec.image, str(spec.vcpus), str(spec.memory_mb)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def shape(spec: VmSpec) -> str:
    """What a template is for: of each shape only the newest is kept."""
    return f"{spec.image} {spec.vcpus} {spec.memory_mb}"


class TemplateStore:
    """The directory of templates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def find(self, key: str) -> Template | None:
        """The template, if it is there and whole."""
        directory = self.directory / key
        try:
            meta = msgspec.json.decode((directory / "meta.json").read_bytes(), type=Meta)
            ram = (directory / "ram").stat()
            state = (directory / "state").read_bytes()
        except (OSError, msgspec.DecodeError):
            return None
        whole = (meta.key, meta.ram_size, meta.ram_mtime_ns) == (key, ram.st_size, ram.st_mtime_ns)
        if not whole or hashlib.sha256(state).hexdigest() != meta.state_sha256:
            return None
        return Template(directory, key, meta.disk_bytes)

    def scratch(self, key: str) -> Path:
        """A directory to make the template in. The caller holds the key's lock: what is there is from a crash."""
        path = self.directory / f".{key}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True, mode=0o755)
        return path

    def unfinished(self) -> list[Path]:
        """Directories that builders are at work in, or were when they were killed."""
        return [path for path in self.directory.glob(".*") if path.name not in (LOCKS, "..", ".")]

    def lock(self, key: str) -> Path:
        return self.directory / LOCKS / key

    async def publish(self, scratch: Path, key: str, spec: VmSpec, disk_bytes: int) -> Template:
        """Make what was written to SCRATCH/{ram,state} the template of the key."""
        return await asyncio.to_thread(self._publish, scratch, key, spec, disk_bytes)

    def _publish(self, scratch: Path, key: str, spec: VmSpec, disk_bytes: int) -> Template:
        target = self.directory / key
        beside = self.directory / f".{key}.whole"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o755)
        for name in ("ram", "state"):
            with (scratch / name).open("rb") as file:
                os.fsync(file.fileno())
            (scratch / name).chmod(0o444)
            (scratch / name).replace(beside / name)
        ram = (beside / "ram").stat()
        digest = hashlib.sha256((beside / "state").read_bytes()).hexdigest()
        meta = Meta(key, shape(spec), ram.st_size, ram.st_mtime_ns, digest, disk_bytes)
        write_atomic(beside / "meta.json", msgspec.json.encode(meta), mode=0o644, durable=True)
        shutil.rmtree(target, ignore_errors=True)
        beside.replace(target)
        self._drop_older(target, meta.shape)
        return Template(target, key, disk_bytes)

    def _drop_older(self, current: Path, shape_of_current: str) -> None:
        """Remove templates of the same shape: their keys cannot come up again, something in them has changed.

        Clones that map their memory keep it; only the name goes.
        """
        for path in self.directory.glob("[0-9a-f]*/meta.json"):
            if path.parent == current:
                continue
            try:
                meta = msgspec.json.decode(path.read_bytes(), type=Meta)
            except (OSError, msgspec.DecodeError):
                continue
            if meta.shape == shape_of_current:
                shutil.rmtree(path.parent, ignore_errors=True)
