"""The end of nearly every job, recorded with few statements: its script has ended, nobody has wished it to stop, and it
is not persistent (so nothing leads into its VM). `reports.job_ended` does the same for all others.

On the way of every job, so the statements are made once.
"""

from __future__ import annotations

from typing import cast

from sqlalchemy import String, Table, Text, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.db import now_ms
from mags.control.lifecycles.endings import OPEN, Effects
from mags.control.lifecycles.starts import note_started
from mags.control.models import Job
from mags.protocol.messages import JobEnded
from mags.protocol.states import JobStatus

_JOBS = cast(Table, Job.__table__)
_THE_JOB = bindparam("the_job", type_=String)

_LOOK = (
    select(_JOBS.c.start_kind)
    .where(
        _JOBS.c.id == _THE_JOB,
        _JOBS.c.vm_id == bindparam("the_vm"),
        _JOBS.c.status.in_([status.value for status in OPEN]),
        _JOBS.c.persistent.is_(False),
        _JOBS.c.ended_ms.is_(None),
        _JOBS.c.stop_ms.is_(None),
    )
    .with_for_update()
)
_END = (
    update(_JOBS)
    .where(_JOBS.c.id == _THE_JOB)
    .values(
        status=bindparam("as_status"),
        exit_code=bindparam("code"),
        error=func.coalesce(bindparam("why", type_=Text), _JOBS.c.error),
        cpu_ms=bindparam("used_ms"),
        ended_ms=bindparam("at_ms"),
        completed_ms=bindparam("at_ms"),
        step="",
        step_ms=None,
    )
)


async def end_simply(session: AsyncSession, event: JobEnded, effects: Effects) -> bool:
    """False: it is not such an end, and nothing was done."""
    key = {"the_job": event.job_id}
    row = (await session.execute(_LOOK, {**key, "the_vm": event.vm_id})).one_or_none()
    if row is None:
        return False
    if event.started is not None and row.start_kind is None:
        await note_started(session, event.job_id, event.vm_id, event.started)
    good = event.error is None and event.exit_code == 0
    values = {
        **key,
        "as_status": (JobStatus.COMPLETED if good else JobStatus.ERROR).value,
        "code": event.exit_code,
        "why": event.error,
        "used_ms": event.cpu_ms,
        "at_ms": event.ended_at_ms or now_ms(),
    }
    await session.execute(_END, values)
    effects.changed.add(event.job_id)
    return True
