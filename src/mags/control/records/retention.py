"""Jobs that ended long ago, with all that led to them, and their VMs: found, and removed from the records."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import delete, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.models import Job, OpenPort, SshKey, SshPort, Vm, Workspace
from mags.protocol.states import FINAL_JOB_STATUSES


async def old_jobs(session: AsyncSession, *, ended_before_ms: int, limit: int) -> dict[str, int]:
    """Jobs of any owner that were over by then and have nothing left to do: id -> when it ended, the oldest first.

    Not the one that a VM which is still there was made for: it stands for the VM.
    """
    stands = exists().where(Vm.id == Job.vm_id, Vm.starter == Job.id, Vm.active.is_(True))
    rows = await session.execute(
        select(Job.id, Job.completed_ms)
        .where(
            Job.completed_ms < ended_before_ms, Job.status.in_(FINAL_JOB_STATUSES), Job.step_ms.is_(None), ~stands
        )
        .order_by(Job.completed_ms)
        .limit(limit)
    )  # fmt: skip
    return {row[0]: int(row[1] or 0) for row in rows}


async def remove_jobs(session: AsyncSession, ids: Collection[str]) -> None:
    for table in (OpenPort, SshPort, SshKey):
        await session.execute(delete(table).where(table.job_id.in_(ids)))
    await session.execute(delete(Job).where(Job.id.in_(ids)))


async def old_vms(session: AsyncSession, *, ended_before_ms: int, limit: int) -> Sequence[str]:
    """VMs that were gone by then and that no job or workspace names."""
    named = exists().where(Job.vm_id == Vm.id) | exists().where(Workspace.vm_id == Vm.id)
    rows = await session.execute(
        select(Vm.id)
        .where(Vm.ended_ms < ended_before_ms, Vm.active.is_(False), ~named)
        .order_by(Vm.ended_ms)
        .limit(limit)
    )
    return rows.scalars().all()


async def remove_vms(session: AsyncSession, ids: Collection[str]) -> None:
    await session.execute(delete(Vm).where(Vm.id.in_(ids)))
