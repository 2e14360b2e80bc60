"""Recording how a script was started: by the host's answer or, if that is quicker, with the script's end.

On the way of every job, so the statements are made once.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Table, bindparam, case, func, update
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.models import Job, Vm
from mags.protocol.messages import Started
from mags.protocol.states import JobStatus, VmState

_JOBS, _VMS = cast(Table, Job.__table__), cast(Table, Vm.__table__)

_JOB = (
    update(_JOBS)
    .where(_JOBS.c.id == bindparam("the_job"))
    .values(
        status=case((_JOBS.c.status == JobStatus.PENDING.value, JobStatus.RUNNING.value), else_=_JOBS.c.status),
        started_ms=func.coalesce(_JOBS.c.started_ms, bindparam("at_ms")),
        boot_ms=bindparam("took_ms"),
        start_kind=bindparam("kind"),
    )
)
_ANSWERED = _JOB.values(step="", step_ms=None).returning(_JOBS.c.stop_ms)
_VM = (
    update(_VMS)
    .where(_VMS.c.id == bindparam("the_vm"))
    .values(
        started=True,
        revive=False,
        started_ms=func.coalesce(_VMS.c.started_ms, bindparam("at_ms")),
        state=case((_VMS.c.state == VmState.RESTORING.value, VmState.RUNNING.value), else_=_VMS.c.state),
    )
    .returning(_VMS.c.no_sleep, _VMS.c.startup_command, _VMS.c.idle_timeout_s)
)

Tuning = tuple[bool, str | None, int | None]
"""How a VM is to sleep and wake: no_sleep, startup command, idle time-out in seconds."""


def _values(job_id: str, started: Started) -> dict[str, Any]:
    return {
        "the_job": job_id,
        "at_ms": started.started_at_ms,
        "took_ms": started.boot_ms,
        "kind": started.start_kind,
    }


async def note_started(session: AsyncSession, job_id: str, vm_id: str, started: Started) -> None:
    """With the script's end. Rows that the session has loaded are not refreshed."""
    await _note_vm(session, vm_id, started)
    await session.execute(_JOB, _values(job_id, started))


async def note_answered(session: AsyncSession, job_id: str, vm_id: str, started: Started) -> tuple[bool, Tuning]:
    """By the host's answer: nothing is left to do for the start. Whether the job is to stop, and the VM's tuning as it
    is wished now."""
    wished = await _note_vm(session, vm_id, started)
    stop_ms = (await session.execute(_ANSWERED, _values(job_id, started))).scalar_one()
    return stop_ms is not None, wished


async def _note_vm(session: AsyncSession, vm_id: str, started: Started) -> Tuning:
    values = {"the_vm": vm_id, "at_ms": started.started_at_ms}
    no_sleep, startup_command, idle_timeout_s = (await session.execute(_VM, values)).one()
    return no_sleep, startup_command, idle_timeout_s
