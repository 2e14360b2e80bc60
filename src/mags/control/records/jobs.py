"""Jobs of one owner, and what a reference in a URL means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, String, and_, bindparam, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control import errors
from mags.control.models import Job, Vm
from mags.protocol.ids import is_id
from mags.protocol.states import JobStatus

UP = (JobStatus.RUNNING, JobStatus.SLEEPING)
OPEN = (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.SLEEPING)


class _Search:
    """What a reference means to an owner, looked for in this order. On the way of most requests, so the queries are
    made once."""

    def __init__(self, wanted: Select[*tuple[Any, ...]]) -> None:
        mine = wanted.where(Job.owner_id == bindparam("owner"))
        reference = bindparam("reference", type_=String)
        named, placed = mine.where(Job.name == reference), mine.where(Job.workspace == reference)
        self._by_id = mine.where(Job.id == reference)
        self._others = [
            query.order_by(Job.created_ms.desc(), Job.id).limit(1)
            for query in (named.where(Job.status.in_(UP)), placed.where(Job.status.in_(UP)), named, placed)
        ]

    async def first(self, session: AsyncSession, owner: str, reference: str) -> Row[*tuple[Any, ...]] | None:
        if is_id(reference):
            wish = {"owner": owner, "reference": reference.lower()}
            row = (await session.execute(self._by_id, wish)).one_or_none()
            if row is not None:
                return row
        for query in self._others:
            row = (await session.execute(query, {"owner": owner, "reference": reference})).one_or_none()
            if row is not None:
                return row
        return None


_JOB = _Search(select(Job))
_JOB_AND_VM = _Search(select(Job, Vm).outerjoin(Vm, and_(Vm.id == Job.vm_id, Vm.owner_id == Job.owner_id)))


async def find(session: AsyncSession, owner: str, reference: str) -> Job | None:
    """By exact id; by name, then workspace, among running or sleeping; by name, then workspace, the newest."""
    row = await _JOB.first(session, owner, reference)
    return row[0] if row is not None else None


async def get(session: AsyncSession, owner: str, reference: str) -> Job:
    """As `find`; not_found when there is none."""
    job = await find(session, owner, reference)
    if job is None:
        raise errors.not_found("job, sandbox or workspace", reference)
    return job


async def get_with_vm(session: AsyncSession, owner: str, reference: str) -> tuple[Job, Vm | None]:
    """As `get`, with the job's VM, in one query."""
    row = await _JOB_AND_VM.first(session, owner, reference)
    if row is None:
        raise errors.not_found("job, sandbox or workspace", reference)
    return row[0], row[1]


_END = select(Job.status, Job.exit_code, Job.error, Job.ended_ms, Job.completed_ms).where(
    Job.id == bindparam("key"), Job.owner_id == bindparam("owner")
)


async def end_of(
    session: AsyncSession, owner: str, job_id: str
) -> Row[str, int | None, str | None, int | None, int | None] | None:
    """What is recorded of a job's end: status, exit code, error, and when its script ended and when it was over."""
    return (await session.execute(_END, {"key": job_id, "owner": owner})).one_or_none()


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
