"""Whether this host has room for one more VM, or for one that wakes, and what it tells of itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mags.host.config import Settings

NEW_VM_MB = 96
"""What a VM takes at once: its own pages, and its hypervisor's."""
PRESSING_S = 5.0
"""How long a wish for room is remembered."""
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


Memory = Callable[[], Mapping[str, int]]
"""What /proc/meminfo says, KiB."""


def meminfo() -> dict[str, int]:
    """proc_meminfo(5)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


class Capacity:
    """`making` tells how many VMs are being made now, `vms` how many there are."""

    def __init__(
        self, settings: Settings, *, making: Callable[[], int], vms: Callable[[], int], memory: Memory = meminfo
    ) -> None:
        self._settings, self._making, self._vms, self._memory = settings, making, vms, memory
        self._promised = 0
        self._asked, self._lacking = float("-inf"), 0
        self.wanted = asyncio.Event()
        """Somebody lacks memory: whoever can spare some may. For one taker, who clears it."""
        self._closed = False

    def close(self) -> None:
        """No more VMs from now on."""
        self._closed = True

    def measure(self) -> Measure:
        """About 0.1 ms."""
        memory = self._memory()
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
        taken = self._taken()
        return judge(self._settings, measure or self.measure(), taken_mb=taken, vms=self._vms())

    def wake_verdict(self, used_mb: int) -> Verdict:
        """Whether a VM may wake that had `used_mb` MiB for itself: it is memory alone that counts."""
        return judge_memory(self._settings, self.measure(), taken_mb=self._taken(), needed_mb=used_mb)

    @contextmanager
    def promised(self, used_mb: int) -> Iterator[None]:
        """Meanwhile a VM comes up that has had `used_mb` MiB for itself."""
        needed = max(used_mb, NEW_VM_MB)
        self._promised += needed
        try:
            yield
        finally:
            self._promised -= needed

    @property
    def short(self) -> bool:
        """Whether less memory is free than is to stay free."""
        return self.measure().free_memory_mb - self._taken() < self._settings.memory_reserve_mb

    @property
    def tight(self) -> bool:
        """Whether there is no memory for a new VM."""
        return not self.wake_verdict(0).accepting

    @property
    def pressing(self) -> bool:
        """Whether somebody lacked memory just now."""
        return time.monotonic() - self._asked < PRESSING_S

    def ask_for_room(self, used_mb: int) -> None:
        """There is no memory for a VM that has had so much for itself."""
        self._asked, self._lacking = time.monotonic(), used_mb
        self.wanted.set()

    @property
    def relieved(self) -> bool:
        """Whether there is memory now for who lacked it last."""
        return self.wake_verdict(self._lacking).accepting

    def _taken(self) -> int:
        """MiB that are as good as used."""
        return self._making() * NEW_VM_MB + self._promised


def judge(settings: Settings, measure: Measure, *, taken_mb: int, vms: int) -> Verdict:
    """Whether there is room for a new VM. Pure. taken_mb: MiB that VMs being made will use in a moment."""
    if measure.free_disk_gb < settings.disk_reserve_gb:
        return Verdict(
            False,
            f"The disk of host {settings.host_id} is full ({measure.free_disk_gb:.1f} GB free, "
            f"{settings.disk_reserve_gb:g} GB are kept free): make room in {settings.state}.",
        )
    memory = judge_memory(settings, measure, taken_mb=taken_mb)
    if not memory.accepting:
        return memory
    if vms >= settings.max_vms:
        return Verdict(False, f"Host {settings.host_id} has its {settings.max_vms} VMs: stop some.")
    return Verdict(True)


def judge_memory(settings: Settings, measure: Measure, *, taken_mb: int, needed_mb: int = 0) -> Verdict:
    """Whether there is memory for one more VM that will need so much, at least what every VM does. Pure."""
    free, needed = measure.free_memory_mb - taken_mb, max(needed_mb, NEW_VM_MB)
    if free >= settings.memory_reserve_mb + needed:
        return Verdict(True)
    return Verdict(
        False,
        f"The memory of host {settings.host_id} is used up ({max(free, 0)} MB free, {needed} MB needed, "
        f"{settings.memory_reserve_mb} MB are kept free): stop some VMs, or put them to sleep.",
    )
