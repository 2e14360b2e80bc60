from __future__ import annotations

from pathlib import Path

import pytest

from mags.host.config import Settings
from mags.host.machines.capacity import NEW_VM_MB, Capacity, Measure, judge

SETTINGS = Settings(host_id="h1", memory_reserve_mb=1000, disk_reserve_gb=2, max_vms=3)


def measure(*, memory: int = 8000, disk: float = 50.0) -> Measure:
    return Measure(cpus=2, memory_mb=16000, free_memory_mb=memory, free_disk_gb=disk, load=0.5)


def test_a_machine_with_room_takes_vms() -> None:
    verdict = judge(SETTINGS, measure(), making=0, vms=0)
    assert verdict.accepting and not verdict.reason


@pytest.mark.parametrize(
    ("measured", "making", "vms", "word"),
    [
        (measure(disk=1.9), 0, 0, "disk"),
        (measure(memory=1000 + NEW_VM_MB - 1), 0, 0, "memory"),
        (measure(memory=1000 + 3 * NEW_VM_MB), 3, 0, "memory"),
        (measure(), 0, 3, "3 VMs"),
    ],
)
def test_a_full_machine_says_what_is_full_and_what_to_do(measured: Measure, making: int, vms: int, word: str) -> None:
    verdict = judge(SETTINGS, measured, making=making, vms=vms)
    assert not verdict.accepting
    assert word in verdict.reason and "h1" in verdict.reason and verdict.reason.endswith(".")


def test_it_measures_this_machine(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    settings.state.mkdir()
    measured = Capacity(settings, making=lambda: 0, vms=lambda: 0).measure()
    assert 0 < measured.free_memory_mb <= measured.memory_mb
    assert measured.free_disk_gb > 0 and measured.cpus >= 1
