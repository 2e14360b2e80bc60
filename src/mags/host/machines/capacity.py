"""Whether this host has room for one more VM, and what it tells of itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mags.host.config import Settings

NEW_VM_MB = 96
"""What a VM takes at once: its own pages, and its hypervisor's."""
MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Measure:
    """The machine as it is now."""

    cpus: int
    memory_mb: int
    free_memory_mb: int
    free_disk_gb: float
    load: float
    """Of one processor, over the last minute."""


@dataclass(frozen=True, slots=True)
class Verdict:
    accepting: bool
    reason: str = ""
    """For a person: why not, and what to do."""


class Capacity:
    """`making` tells how many VMs are being made now, `vms` how many there are."""

    def __init__(self, settings: Settings, *, making: Callable[[], int], vms: Callable[[], int]) -> None:
        self._settings, self._making, self._vms = settings, making, vms
        self._closed = False

    def close(self) -> None:
        """No more VMs from now on."""
        self._closed = True

    def measure(self) -> Measure:
        """About 0.1 ms."""
        memory = _memory()
        cpus = os.cpu_count() or 1
        return Measure(
            cpus=cpus,
            memory_mb=memory["MemTotal"] >> 10,
            free_memory_mb=memory["MemAvailable"] >> 10,
            free_disk_gb=shutil.disk_usage(self._settings.state).free / GIB,
            load=os.getloadavg()[0] / cpus,
        )

    def verdict(self, measure: Measure | None = None) -> Verdict:
        if self._closed:
            return Verdict(False, f"Host {self._settings.host_id} is being taken out of service.")
        return judge(self._settings, measure or self.measure(), making=self._making(), vms=self._vms())


def judge(settings: Settings, measure: Measure, *, making: int, vms: int) -> Verdict:
    """Pure."""
    if measure.free_disk_gb < settings.disk_reserve_gb:
        return Verdict(
            False,
            f"The disk of host {settings.host_id} is full ({measure.free_disk_gb:.1f} GB free, "
            f"{settings.disk_reserve_gb:g} GB are kept free): make room in {settings.state}.",
        )
    free = measure.free_memory_mb - making * NEW_VM_MB
    if free < settings.memory_reserve_mb + NEW_VM_MB:
        return Verdict(
            False,
            f"The memory of host {settings.host_id} is used up ({free} MB free, "
            f"{settings.memory_reserve_mb} MB are kept free): stop some VMs.",
        )
    if vms >= settings.max_vms:
        return Verdict(False, f"Host {settings.host_id} has its {settings.max_vms} VMs: stop some.")
    return Verdict(True)


def _memory() -> dict[str, int]:
    """/proc/meminfo in KiB (proc_meminfo(5))."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
