"""What the wall clock has done beyond what has passed."""

from __future__ import annotations

from mags.kit.jumps import Jumps


def test_a_jump_is_told_once_and_in_its_direction() -> None:
    wall, steady = [1_000_000.0], [50.0]
    clock = Jumps(wall=lambda: wall[0], steady=lambda: steady[0])

    def after(seconds: float, jump: float = 0.0) -> float | None:
        steady[0] += seconds
        wall[0] += seconds + jump
        return clock.last()

    assert clock.last() is None, "what it was before we began nobody knows"
    assert after(1.0) == 0.0
    assert after(1.0, jump=86400.0) == 86400.0
    assert after(5000.0) == 0.0
    assert after(1.0, jump=-3600.0) == -3600.0
    assert after(1.0) == 0.0
