from __future__ import annotations

from pathlib import Path

import pytest

from mags.host.config import Settings
from mags.host.machines.capacity import NEW_VM_MB, Capacity, Measure, judge, judge_memory

SETTINGS = Settings(host_id="h1", memory_reserve_mb=1000, disk_reserve_gb=2, max_vms=3)


def measure(*, memory: int = 8000, disk: float = 50.0) -> Measure:
    return Measure(cpus=2, memory_mb=16000, free_memory_mb=memory, free_disk_gb=disk, load=0.5)


def test_a_machine_with_room_takes_vms() -> None:
    verdict = judge(SETTINGS, measure(), taken_mb=0, vms=0)
    assert verdict.accepting and not verdict.reason


@pytest.mark.parametrize(
    ("measured", "taken", "vms", "word"),
    [
        (measure(disk=1.9), 0, 0, "disk"),
        (measure(memory=1000 + NEW_VM_MB - 1), 0, 0, "memory"),
        (measure(memory=1000 + 3 * NEW_VM_MB), 3 * NEW_VM_MB, 0, "memory"),
        (measure(), 0, 3, "3 VMs"),
    ],
)
def test_a_full_machine_says_what_is_full_and_what_to_do(measured: Measure, taken: int, vms: int, word: str) -> None:
    verdict = judge(SETTINGS, measured, taken_mb=taken, vms=vms)
    assert not verdict.accepting
    assert word in verdict.reason and "h1" in verdict.reason and verdict.reason.endswith(".")


def test_a_vm_wakes_only_where_there_is_the_memory_that_it_had() -> None:
    for free, needed, fits in ((1300, 300, True), (1299, 300, False), (1000 + NEW_VM_MB, 20, True), (1050, 20, False)):
        verdict = judge_memory(SETTINGS, measure(memory=free, disk=0), taken_mb=0, needed_mb=needed)
        assert verdict.accepting is fits, (free, needed)
    assert not judge_memory(SETTINGS, measure(memory=1300), taken_mb=1, needed_mb=300).accepting


def test_what_is_promised_to_one_is_not_given_to_another(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, memory_reserve_mb=1000)
    settings.state.mkdir()
    free = {"MemTotal": 8000 << 10, "MemAvailable": 1500 << 10}
    capacity = Capacity(settings, making=lambda: 0, vms=lambda: 0, memory=lambda: free)
    assert capacity.wake_verdict(300).accepting
    with capacity.promised(300):
        refused = capacity.wake_verdict(300)
        assert not refused.accepting and "300 MB needed" in refused.reason and not capacity.short
        capacity.ask_for_room(300)
        assert capacity.pressing and capacity.wanted.is_set() and not capacity.relieved
        free["MemAvailable"] = 1200 << 10
        assert capacity.short
    assert not capacity.short and not capacity.relieved
    free["MemAvailable"] = 1300 << 10
    assert capacity.relieved


def test_it_measures_this_machine(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    settings.state.mkdir()
    measured = Capacity(settings, making=lambda: 0, vms=lambda: 0).measure()
    assert 0 < measured.free_memory_mb <= measured.memory_mb
    assert measured.free_disk_gb > 0 and measured.cpus >= 1
