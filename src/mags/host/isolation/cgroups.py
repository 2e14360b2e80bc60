"""Control groups for VMs: bounds for memory, processor time and processes, on cgroup v2, v1, or where there is none.

Our groups are `mags-ID/NAME` at the top of each hierarchy and not below the host program's own: they outlive it, and
systemd ends what is in a service's group when the service ends.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

OVERHEAD_MB = 256
"""MiB that a hypervisor may use beyond its guest's memory: its code, buffers, and translated code under TCG."""

WANTED = ("memory", "cpu", "pids")
PERIOD = 100_000
"""Microseconds in which a group's share of processor time is counted."""

END_SECONDS = 10.0
"""How long `destroy` waits until the processes of a group are gone."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The group of one VM: a directory in each hierarchy that has a controller of ours."""

    name: str
    directories: tuple[Path, ...]

    def attach(self, pid: int) -> None:
        """Move a process, with all its threads, into the group. Its later children are born there."""
        for directory in self.directories:
            (directory / "cgroup.procs").write_text(str(pid))

    def pids(self) -> set[int]:
        """The processes in the group."""
        found: set[int] = set()
        for directory in self.directories:
            try:
                found.update(int(line) for line in (directory / "cgroup.procs").read_text().split())
            except OSError:
                continue
        return found

    async def destroy(self) -> None:
        """Kill what is still in the group and remove it. Harmless if repeated. Raises TimeoutError."""
        async with asyncio.timeout(END_SECONDS):
            while not self._remove():
                for pid in self.pids():
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                await asyncio.sleep(0.01)

    def _remove(self) -> bool:
        gone = True
        for directory in self.directories:
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                gone = False
        return gone


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The groups of one installation.

    version: 2, 1, or 0 where this machine has no control groups for us. roots: controller -> where its hierarchy is
    mounted.
    """

    installation: str
    version: int
    roots: Mapping[str, Path]

    @classmethod
    def detect(cls, installation: str, mounts: Path = Path("/proc/self/mounts")) -> Cgroups:
        """What this machine has. Controllers of v2 are used when memory is among them, else those of v1."""
        unified: Path | None = None
        legacy: dict[str, Path] = {}
        for line in mounts.read_text().splitlines():
            _, where, kind, options, *_ = line.split()
            if kind == "cgroup2":
                unified = Path(where)
            elif kind == "cgroup":
                legacy.update({word: Path(where) for word in options.split(",") if word in WANTED})
        if unified is not None:
            try:
                offered = (unified / "cgroup.controllers").read_text().split()
            except OSError:
                offered = []
            if "memory" in offered:
                return cls(installation, 2, {word: unified for word in WANTED if word in offered})
        return cls(installation, 1 if legacy else 0, legacy)

    @property
    def _parent(self) -> str:
        return f"mags-{self.installation}"

    def create(self, name: str, *, memory_mb: int, vcpus: int, pids: int = 128) -> Cgroup | None:
        """A group for a VM with `memory_mb` MiB and `vcpus` processors; None where there can be none.

        Its processes together may use OVERHEAD_MB more than that, and one processor more, in `pids` threads.
        """
        group = self._group(name)
        try:
            if self.version == 2:
                root = next(iter(self.roots.values()))
                self._delegate(root)
                self._delegate(root / self._parent)
            for directory in group.directories:
                directory.mkdir(parents=True, exist_ok=True)
            for file, value in self._limits(memory_mb, vcpus, pids).items():
                self._write(name, file, value)
        except OSError as error:
            log.warning("no control group for VM %s: %s", name, error)
            group._remove()
            return None
        return group if group.directories else None

    def adopt(self, name: str) -> Cgroup | None:
        """The group that an earlier process made; None if it is not there."""
        group = self._group(name)
        there = bool(group.directories) and all(directory.is_dir() for directory in group.directories)
        return group if there else None

    async def sweep(self, keep: Collection[str]) -> list[str]:
        """Destroy the groups of this installation but those named, with all that runs in them; returns which."""
        parents = {root / self._parent for root in self.roots.values()}
        names = {path.name for parent in parents if parent.is_dir() for path in parent.iterdir() if path.is_dir()}
        orphans = sorted(names - set(keep))
        for name in orphans:
            await self._group(name).destroy()
        return orphans

    def close(self) -> None:
        """Remove the installation's own group where no VM is left in it."""
        for parent in {root / self._parent for root in self.roots.values()}:
            try:
                parent.rmdir()
            except OSError:
                continue

    def _group(self, name: str) -> Cgroup:
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"{name!r} is no name of a group")
        return Cgroup(name, tuple(sorted({root / self._parent / name for root in self.roots.values()})))

    def _limits(self, memory_mb: int, vcpus: int, pids: int) -> dict[str, str]:
        memory, quota = (memory_mb + OVERHEAD_MB) << 20, (vcpus + 1) * PERIOD
        if self.version == 2:
            return {
                "memory.max": str(memory),
                "memory.oom.group": "1",
                "cpu.max": f"{quota} {PERIOD}",
                "cpu.weight": str(min(100 * vcpus, 10_000)),
                "pids.max": str(pids),
            }
        return {
            "memory.limit_in_bytes": str(memory),
            "cpu.cfs_period_us": str(PERIOD),
            "cpu.cfs_quota_us": str(quota),
            "cpu.shares": str(1024 * vcpus),
            "pids.max": str(pids),
        }

    def _write(self, name: str, file: str, value: str) -> None:
        root = self.roots.get(file.partition(".")[0])
        if root is not None:
            (root / self._parent / name / file).write_text(value)

    def _delegate(self, directory: Path) -> None:
        """Let the children of a v2 group have our controllers."""
        directory.mkdir(exist_ok=True)
        control = directory / "cgroup.subtree_control"
        missing = set(self.roots) - set(control.read_text().split())
        if missing:
            control.write_text(" ".join(f"+{word}" for word in sorted(missing)))
