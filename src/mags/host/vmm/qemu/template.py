"""Templates: machines that were booted once and wait on disk to be cloned.

    STATE/templates/KEY/{ram, state, disk, meta.json}

`ram` is the guest's memory, sparse, read-only: clones map it privately. `state` is the rest of the machine (64 KB).
There are two kinds: in a *rooted* one the guest has mounted its root and run a command; `disk` is what its work disk
held at that moment, and the base of its clones' disks. A *bare* one has not looked at its work disk: its clones may
have any.

KEY covers everything that could make a restore differ. A template is made under another name and renamed when whole;
one that does not match its own record is made anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mags.host.vmm.qemu.machine import CPU, DEVICES, Hypervisor, kernel_arguments
from mags.host.vmm.spec import VmSpec
from mags.kit.files import write_atomic

LOCKS = ".locks"
LIMIT = 16
"""Templates that are kept: each takes some 100 MB of disk."""


class Meta(msgspec.Struct, frozen=True):
    """Read back to see that the files are the ones that were written.

    disk_bytes: size of the work disk that the guest saw.
    """

    key: str
    kind: str
    ram_size: int
    ram_mtime_ns: int
    state_sha256: str
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Template:
    directory: Path
    key: str
    disk_bytes: int
    rooted: bool

    @property
    def ram(self) -> Path:
        return self.directory / "ram"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def disk(self) -> Path:
        """Of a rooted one."""
        return self.directory / "disk"


def template_key(spec: VmSpec, hypervisor: Hypervisor, accelerator: str, boot_key: str, *, rooted: bool = False) -> str:
    """boot_key: covers kernel, initramfs (with the agent) and image."""
    parts = [DEVICES, CPU, hypervisor.version, accelerator, kernel_arguments(accelerator), boot_key]
    parts.append(kind(spec, rooted=rooted))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def kind(spec: VmSpec, *, rooted: bool) -> str:
    """What a template is for: of each kind only the newest is kept."""
    disk = f"rooted {spec.disk_gb}" if rooted else "bare"
    return f"{spec.image} {spec.vcpus} {spec.memory_mb} {disk}"


class TemplateStore:
    """The directory of templates."""

    def __init__(self, directory: Path) -> None:
        # Processes are found by paths in here, so there must be one way only to write them.
        self.directory = directory.resolve()

    def find(self, key: str) -> Template | None:
        """The template, if it is there and whole."""
        directory = self.directory / key
        try:
            meta = msgspec.json.decode((directory / "meta.json").read_bytes(), type=Meta)
            ram = (directory / "ram").stat()
            rooted = (directory / "disk").exists()
            state = (directory / "state").read_bytes()
        except (OSError, msgspec.DecodeError):
            return None
        whole = (meta.key, meta.ram_size, meta.ram_mtime_ns) == (key, ram.st_size, ram.st_mtime_ns)
        if not whole or hashlib.sha256(state).hexdigest() != meta.state_sha256:
            return None
        try:
            os.utime(directory)
        except FileNotFoundError:
            return None  # it was dropped just now
        return Template(directory, key, meta.disk_bytes, rooted)

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

    async def publish(self, key: str, name: str, disk_bytes: int, **files: Path) -> Template:
        """Make finished files (ram, state, and a rooted one's disk) the template of the key.

        name: its kind. disk_bytes: size of the work disk that the guest has seen.
        """
        return await asyncio.to_thread(self._publish, key, name, disk_bytes, files)

    def _publish(self, key: str, name: str, disk_bytes: int, files: Mapping[str, Path]) -> Template:
        target = self.directory / key
        beside = self.directory / f".{key}.whole"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o755)
        for file, source in files.items():
            with source.open("rb") as content:
                os.fsync(content.fileno())
            source.chmod(0o444)
            source.replace(beside / file)
        ram = (beside / "ram").stat()
        digest = hashlib.sha256((beside / "state").read_bytes()).hexdigest()
        meta = Meta(key, name, ram.st_size, ram.st_mtime_ns, digest, disk_bytes)
        write_atomic(beside / "meta.json", msgspec.json.encode(meta), mode=0o644, durable=True)
        shutil.rmtree(target, ignore_errors=True)
        beside.replace(target)
        self._drop_older(target, name)
        return Template(target, key, disk_bytes, "disk" in files)

    def _drop_older(self, current: Path, name: str) -> None:
        """Remove templates of the same kind, whose keys cannot come up again; and of all others those that have not
        been used for longest, down to LIMIT. Clones that map a template's memory keep it; only the name goes.
        """
        others = []
        for path in self.directory.glob("[0-9a-f]*/meta.json"):
            if path.parent == current:
                continue
            try:
                meta: Meta | None = msgspec.json.decode(path.read_bytes(), type=Meta)
            except OSError:
                continue
            except msgspec.DecodeError:
                meta = None  # of another version of Mags
            if meta is None or meta.kind == name:
                shutil.rmtree(path.parent, ignore_errors=True)
            else:
                others.append(path.parent)
        others.sort(key=last_use, reverse=True)
        for directory in others[LIMIT - 1 :]:
            shutil.rmtree(directory, ignore_errors=True)


def last_use(directory: Path) -> float:
    """Time of the directory, which `TemplateStore.find` sets."""
    try:
        return directory.stat().st_mtime
    except FileNotFoundError:
        return 0.0
