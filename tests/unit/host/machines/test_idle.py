"""When a VM counts as idle."""

from __future__ import annotations

import pytest

from mags.host.machines.idle import CPU, TRAFFIC, Look, active, interval, keeps_awake
from mags.host.machines.record import Record
from mags.protocol.messages import Keep, VmSpec


@pytest.mark.parametrize(
    ("look", "stays", "expected"),
    [
        (Look(10), True, False),
        (Look(10), False, False),
        (Look(10, inside=1), True, True),
        (Look(10, ending=1), True, True),
        (Look(10, traffic=int(TRAFFIC * 10) + 1), True, True),
        (Look(10, traffic=int(TRAFFIC * 10)), True, False),
        (Look(10, cpu_ms=10_000), True, False),  # a process in the background keeps nothing awake
        (Look(10, scripts=1), True, False),  # a server that nobody asks anything
        (Look(10, scripts=1), False, True),
        (Look(10, scripts=1, output=1), True, True),
        (Look(10, scripts=1, cpu_ms=round(CPU * 10_000)), True, False),
        (Look(10, scripts=1, cpu_ms=round(CPU * 20_000)), True, True),
        (Look(0.1, scripts=1, cpu_ms=20), True, False),  # two ticks of the guest's clock are no work
    ],
)
def test_what_keeps_a_vm_awake(look: Look, stays: bool, expected: bool) -> None:
    assert active(look, stays=stays) is expected


def test_looks_are_frequent_enough_and_not_too_frequent() -> None:
    for timeout in (0.5, 1.0, 5.0, 60.0, 600.0, 86_400.0):
        assert 0.1 <= interval(timeout) <= 10.0
        assert interval(timeout) <= timeout / 5 or timeout > 50


@pytest.mark.parametrize(
    ("keep", "no_sleep", "sleeps"),
    [("job", False, False), ("park", False, True), ("stay", False, True), ("stay", True, False)],
)
def test_which_vms_sleep_at_all(keep: Keep, no_sleep: bool, sleeps: bool) -> None:
    record = Record(handle="a", spec=VmSpec(), uid=1, keep=keep, no_sleep=no_sleep)
    problem = keeps_awake(record)
    assert (problem is None) is sleeps
    assert problem is None or problem.code == "conflict"
