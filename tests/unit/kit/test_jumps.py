"""The wall clock set back is noticed once; everything else is not."""

from __future__ import annotations

from mags.kit.jumps import SetBack


def test_a_clock_that_is_set_back_is_noticed_once() -> None:
    wall, steady = [1_000_000.0], [50.0]
    clock = SetBack(wall=lambda: wall[0], steady=lambda: steady[0])

    def pass_by(seconds: float, jump: float = 0.0) -> bool:
        steady[0] += seconds
        wall[0] += seconds + jump
        return clock.noticed()

    assert clock.noticed(), "what it was before we began nobody knows"
    assert not pass_by(1.0)
    assert not pass_by(1.0, jump=86400.0)
    assert not pass_by(1.0, jump=-5.0), "a correction"
    assert pass_by(1.0, jump=-3600.0)
    assert not pass_by(1.0)
