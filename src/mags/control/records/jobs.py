"""Jobs of one owner, and what a reference in a URL means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control import errors
from mags.control.models import Job, Vm
from mags.protocol.ids import is_id
from mags.protocol.states import JobStatus

UP = (JobStatus.RUNNING, JobStatus.SLEEPING)
OPEN = (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.SLEEPING)


async def find(session: AsyncSession, owner: str, reference: str) -> Job | None:
    """By exact id; by name, then workspace, among running or sleeping; by name, then workspace, the newest."""
    row = await _first(session, select(Job), owner, reference)
    return row[0] if row is not None else None


async def _first(
    session: AsyncSession, wanted: Select[*tuple[Any, ...]], owner: str, reference: str
) -> Row[*tuple[Any, ...]] | None:
    if is_id(reference):
        row = (await session.execute(wanted.where(Job.id == reference.lower(), Job.owner_id == owner))).one_or_none()
        if row is not None:
            return row
    named = wanted.where(Job.owner_id == owner, Job.name == reference)
    placed = wanted.where(Job.owner_id == owner, Job.workspace == reference)
    newest = (Job.created_ms.desc(), Job.id)
    for query in (named.where(Job.status.in_(UP)), placed.where(Job.status.in_(UP)), named, placed):
        row = (await session.execute(query.order_by(*newest).limit(1))).one_or_none()
        if row is not None:
            return row
    return None


async def get(session: AsyncSession, owner: str, reference: str) -> Job:
    """As `find`; not_found when there is none."""
    job = await find(session, owner, reference)
    if job is None:
        raise errors.not_found("job, sandbox or workspace", reference)
    return job


async def get_with_vm(session: AsyncSession, owner: str, reference: str) -> tuple[Job, Vm | None]:
    """As `get`, with the job's VM, in one query."""
    both = select(Job, Vm).outerjoin(Vm, and_(Vm.id == Job.vm_id, Vm.owner_id == Job.owner_id))
    row = await _first(session, both, owner, reference)
    if row is None:
        raise errors.not_found("job, sandbox or workspace", reference)
    return row[0], row[1]


async def vm_of(session: AsyncSession, job: Job) -> Vm | None:
    if job.vm_id is None:
        return None
    return (
        await session.execute(select(Vm).where(Vm.id == job.vm_id, Vm.owner_id == job.owner_id))
    ).scalar_one_or_none()


async def page(
    session: AsyncSession,
    owner: str,
    *,
    offset: int,
    limit: int,
    status: str | None = None,
    workspace: str | None = None,
    name: str | None = None,
) -> tuple[Sequence[tuple[Job, Vm | None]], int]:
    """Newest first, with how many there are in all."""
    where = [Job.owner_id == owner]
    if status is not None:
        where.append(Job.status == status)
    if workspace is not None:
        where.append(Job.workspace == workspace)
    if name is not None:
        where.append(Job.name == name)
    total = (await session.execute(select(func.count()).select_from(Job).where(*where))).scalar_one()
    rows = await session.execute(
        select(Job, Vm)
        .outerjoin(Vm, Vm.id == Job.vm_id)
        .where(*where)
        .order_by(Job.created_ms.desc(), Job.id)
        .offset(offset)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in rows], total


async def open_on_vm(session: AsyncSession, owner: str, vm_id: str) -> Sequence[Job]:
    """Jobs on a VM that are not over."""
    return (
        await session.execute(
            select(Job).where(Job.vm_id == vm_id, Job.owner_id == owner, Job.status.in_(OPEN)).order_by(Job.created_ms)
        )
    ).scalars().all()  # fmt: skip


async def led_to(session: AsyncSession, owner: str, workspace: str) -> Job | None:
    """The job that an alias of `workspace` leads to: one that is up, else the newest. A sandbox that has no workspace
    is led to by its name."""
    return (
        await session.execute(
            select(Job)
            .where(Job.owner_id == owner, or_(Job.workspace == workspace, Job.name == workspace))
            .order_by(
                case((Job.status.in_(UP), 0), else_=1),
                case((Job.workspace == workspace, 0), else_=1),
                Job.persistent.desc(),
                Job.created_ms.desc(),
                Job.id,
            )
            .limit(1)
        )
    ).scalar_one_or_none()
