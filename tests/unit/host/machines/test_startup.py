from __future__ import annotations

from mags.host.machines.startup import LASTED_S, pause


def test_a_startup_command_that_fails_is_started_again_later_and_later() -> None:
    pauses: list[float] = []
    for _ in range(9):
        pauses.append(pause(pauses[-1] if pauses else None, 0.1))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_after_one_that_lasted_it_is_started_again_soon() -> None:
    assert pause(60, LASTED_S + 1) == 1 and pause(1, LASTED_S + 1) == 1
    assert pause(16, LASTED_S) == 32, "it has not lasted long enough"
