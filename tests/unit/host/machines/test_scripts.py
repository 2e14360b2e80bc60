from __future__ import annotations

from mags.host.machines import scripts
from mags.protocol.messages import Script


def test_a_script_is_run_as_it_is_with_its_environment_and_time_out() -> None:
    wish = scripts.wish(Script(job_id="j", script="echo ä\r\n", environment={"A": "1"}, timeout_s=3))
    assert wish is not None
    assert wish.script == "echo ä\r\n".encode()
    assert wish.environment == {"A": "1"}
    assert wish.timeout_ms == 3000


def test_an_address_is_fetched_inside_the_vm() -> None:
    wish = scripts.wish(Script(job_id="j", url="http://example.test/s.sh"))
    assert wish is not None
    assert wish.script == scripts.FETCH
    assert wish.argv == ("http://example.test/s.sh",)


def test_without_a_script_nothing_runs() -> None:
    assert scripts.wish(Script(job_id="j")) is None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def pace_after(clock: Clock, pieces: int, size: int, *, every_s: float) -> scripts.Pace:
    pace = scripts.Pace(clock)
    for _ in range(pieces):
        clock.now += every_s
        pace.count(size)
    return pace


def test_only_a_script_that_writes_much_and_fast_is_taken_for_a_flood() -> None:
    assert pace_after(Clock(), 100, 8 << 10, every_s=0.001).floods
    assert not pace_after(Clock(), 10, 8 << 10, every_s=0.001).floods  # not much yet
    assert not pace_after(Clock(), 1000, 8 << 10, every_s=0.1).floods  # a log that is written all the time


def test_a_flood_is_over_when_the_script_writes_slowly_again() -> None:
    clock = Clock()
    pace = pace_after(clock, 100, 8 << 10, every_s=0.001)
    clock.now += 1.0
    pace.count(100)
    assert not pace.floods
