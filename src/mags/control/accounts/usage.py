"""What one has used: jobs and VM time, in a window and by day."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from mags.control.db import now_ms
from mags.control.http import Json, Reader, TheWorld, View
from mags.control.http.times import moment
from mags.control.models import File, Job, Vm, Workspace
from mags.protocol.states import JobStatus

router = APIRouter(tags=["jobs"])

DAY_MS = 86_400_000
_OF_A_DAY = ((1, "jobs"), (2, "completed_jobs"), (3, "failed_jobs"))


class Day(View):
    date: str
    jobs: int
    completed_jobs: int
    failed_jobs: int
    vm_seconds: int


class Usage(View):
    window_days: int
    total_jobs: int
    completed_jobs: int
    failed_jobs: int
    running_jobs: int
    vm_seconds: int
    cpu_seconds: int
    storage_bytes: int
    by_day: list[Day]


@router.get("/mags-jobs/usage", response_model=Usage, summary="What you have used")
async def usage(world: TheWorld, caller: Reader, window_days: Annotated[int, Query(ge=1, le=366)] = 30) -> Response:
    moment_ms = now_ms()
    since = moment_ms - window_days * DAY_MS
    owner = caller.user_id
    async with world.db.read() as session:
        jobs = (
            await session.execute(
                select(
                    _day(Job.created_ms),
                    func.count(),
                    _count(Job.status == JobStatus.COMPLETED),
                    _count(Job.status == JobStatus.ERROR),
                    _count(Job.status.in_((JobStatus.RUNNING, JobStatus.SLEEPING))),
                    func.coalesce(func.sum(Job.cpu_ms), 0),
                )
                .where(Job.owner_id == owner, Job.created_ms >= since)
                .group_by("day")
            )
        ).all()
        seconds = await _vm_seconds(session, owner, since, moment_ms)
        files = (
            await session.execute(select(func.coalesce(func.sum(File.size), 0)).where(File.owner_id == owner))
        ).scalar_one()
        workspaces = (
            await session.execute(
                select(func.coalesce(func.sum(Workspace.size_bytes), 0)).where(
                    Workspace.owner_id == owner, Workspace.deleted_ms == 0
                )
            )
        ).scalar_one()
    by_day = {int(row[0]): row for row in jobs}
    return Json(
        {
            "window_days": window_days,
            "total_jobs": sum(row[1] for row in jobs),
            "completed_jobs": sum(row[2] for row in jobs),
            "failed_jobs": sum(row[3] for row in jobs),
            "running_jobs": sum(row[4] for row in jobs),
            "vm_seconds": sum(seconds.values()),
            "cpu_seconds": sum(int(row[5]) for row in jobs) // 1000,
            "storage_bytes": int(files) + int(workspaces),
            "by_day": [
                {
                    "date": (moment(day * DAY_MS) or "")[:10],
                    **{name: by_day[day][index] if day in by_day else 0 for index, name in _OF_A_DAY},
                    "vm_seconds": seconds.get(day, 0),
                }
                for day in sorted({*by_day, *seconds})
            ],
        }
    )


async def _vm_seconds(session: AsyncSession, owner: str, since: int, until: int) -> dict[int, int]:
    """Seconds that VMs were there, asleep or not, by day since 1970. Only those of several days come one by one."""
    begin, end = func.coalesce(Vm.started_ms, Vm.created_ms), func.coalesce(Vm.ended_ms, until)
    mine = (Vm.owner_id == owner, Vm.started.is_(True), end > begin)  # a clock may have been set back meanwhile
    within = await session.execute(
        select(_day(begin), func.sum(end - begin))
        .where(*mine, begin >= since, begin // DAY_MS == end // DAY_MS)
        .group_by("day")
    )
    spent = Counter({int(day): int(ms) for day, ms in within})
    longer = await session.execute(
        select(begin, end).where(*mine, end > since, (begin < since) | (begin // DAY_MS != end // DAY_MS))
    )
    for first, last in longer:
        at = max(int(first), since)
        while at < last:
            midnight = (at // DAY_MS + 1) * DAY_MS
            spent[at // DAY_MS] += min(midnight, int(last)) - at
            at = midnight
    return {day: ms // 1000 for day, ms in spent.items()}


def _day(column: Any) -> Any:
    """Days since 1970: both databases divide integers to an integer."""
    return (column // DAY_MS).label("day")


def _count(condition: Any) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)
