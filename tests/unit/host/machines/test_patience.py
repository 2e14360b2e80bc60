"""What clocks that jump do to a VM: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mags.host.machines import standing
from mags.host.machines.attendants import Attendants
from mags.host.machines.patience import NOTE_S, Patience
from mags.host.machines.record import Record, Records
from mags.host.machines.standing import Standing
from mags.protocol.messages import Event, VmChanged, VmSpec
from mags.protocol.states import VmState

DAY = 86400.0


def test_a_vm_is_kept_as_long_as_programs_have_counted(tmp_path: Path) -> None:
    record, moment = Record(handle="h", spec=VmSpec(), uid=1), [5000.0]
    written = []
    patience = Patience(record, lambda: written.append(record.slept_s), clock=lambda: moment[0])
    patience.begin()
    assert patience.next_look(DAY) == NOTE_S and patience.next_look(60) == 60
    moment[0] += NOTE_S
    assert not patience.is_over(DAY) and written == [NOTE_S]
    # The next program begins with another clock, and goes on counting.
    moment = [7.0]
    patience = Patience(record, lambda: None, clock=lambda: moment[0])
    moment[0] += DAY - NOTE_S - 1
    assert not patience.is_over(DAY) and patience.next_look(DAY) == 1
    moment[0] += 1
    assert patience.is_over(DAY)
    patience.begin()
    assert not patience.is_over(DAY)


class Heard:
    """In place of events to control."""

    def __init__(self) -> None:
        self.moments: list[int] = []

    async def publish(self, event: Event) -> None:
        assert isinstance(event, VmChanged)
        self.moments.append(event.at_ms)


async def test_news_of_a_vm_is_later_than_all_before_though_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, records = Heard(), Records(tmp_path)
    clock = [1_000_000]
    monkeypatch.setattr(standing, "now_ms", lambda: clock[0])
    record = Record(handle="h", spec=VmSpec(), uid=1, vm_id="v")
    news = Standing(record, records, heard, Attendants())  # type: ignore[arg-type]
    await news.publish(VmState.RUNNING, "")
    clock[0] -= 900_000
    await news.publish(VmState.PARKED, "")
    (again,) = records.read_all()
    news = Standing(again, records, heard, Attendants())  # type: ignore[arg-type]
    await news.publish(VmState.GONE, "")
    clock[0] += 5_000_000
    await news.publish(VmState.GONE, "")
    assert heard.moments == [1_000_000, 1_000_001, 1_000_002, 5_100_000]
