"""How the start of a script is answered: when the guest has it, or its end was told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from mags.host.machines.parts import Parts
from mags.host.machines.record import JobRecord, Record
from mags.host.machines.roster import Roster
from mags.protocol.errors import Problem
from mags.protocol.messages import Started, VmSpec

STARTED = Started(start_kind="warm", boot_ms=0, started_at_ms=1)
OVER = Problem("gone", "The VM is gone.")


async def death() -> str:
    return "It died."


@pytest.fixture
def roster() -> Roster:
    parts = cast(Parts, SimpleNamespace(journal=None, events=None))
    record = Record(handle="h", spec=VmSpec(), uid=0, vm_id="v")
    return Roster(parts, record, death)


async def test_a_script_that_was_sent_is_answered_when_the_guest_has_it(roster: Roster) -> None:
    answer, first = roster.answer("j")
    roster.add(JobRecord(job_id="j"))
    roster.given("j", STARTED)
    assert first and not answer.done()
    roster.had("j")
    roster.had("j")
    assert answer.result() == STARTED
    assert roster.answer("j") == (answer, False)


async def test_a_script_whose_end_was_told_was_started(roster: Roster) -> None:
    """It must not run elsewhere, whether its VM lives or not."""
    for job_id in ("dropped", "told"):
        roster.answer(job_id)
        roster.add(JobRecord(job_id=job_id))
        roster.given(job_id, STARTED)
    roster.drop("dropped")
    roster.jobs["told"].ended.set()
    roster.refuse_all(OVER)
    assert [roster.answer(job_id)[0].result() for job_id in ("dropped", "told")] == [STARTED, STARTED]


async def test_a_script_that_was_not_read_is_refused_with_its_vm(roster: Roster) -> None:
    for job_id in ("sent", "waits"):
        roster.answer(job_id)
    roster.add(JobRecord(job_id="sent"))
    roster.given("sent", STARTED)
    roster.refuse_all(OVER)
    assert [roster.answer(job_id)[0].exception() for job_id in ("sent", "waits")] == [OVER, OVER]
