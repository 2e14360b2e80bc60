"""The addresses of cron jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from mags.control import errors
from mags.control.cron.schemas import CronChange, CronFired, CronList, CronRequest, CronView, Removed
from mags.control.db import now_ms
from mags.control.http import Json, Reader, Reference, TheWorld, Writer, the_once, with_warnings
from mags.control.http.times import moment
from mags.control.lifecycles.schedule import next_after
from mags.control.lifecycles.ticks import fire
from mags.control.models import CronJob, Job
from mags.control.records.idempotency import Earlier, Once, exactly_once
from mags.control.records.limits import check_room
from mags.protocol.errors import Problem
from mags.protocol.ids import is_id, new_id

router = APIRouter(prefix="/mags-cron", tags=["cron"])


def _view(cron: CronJob, last_status: str | None) -> dict[str, Any]:
    return {
        "id": cron.id,
        "name": cron.name,
        "cron_expression": cron.cron_expression,
        "timezone": cron.timezone,
        "script": cron.script,
        "workspace_id": cron.workspace,
        "environment": cron.environment,
        "persistent": cron.persistent,
        "enabled": cron.enabled,
        "created_at": moment(cron.created_ms),
        "next_run_at": moment(cron.next_ms),
        "last_run_at": moment(cron.last_ms),
        "last_request_id": cron.last_request_id,
        "last_status": last_status,
        "last_error": cron.last_error,
        "run_count": cron.run_count,
    }


async def _views(session: AsyncSession, owner: str, rows: Sequence[CronJob]) -> list[dict[str, Any]]:
    last = [row.last_request_id for row in rows if row.last_request_id is not None]
    found = await session.execute(select(Job.id, Job.status).where(Job.owner_id == owner, Job.id.in_(last)))
    statuses = {str(job_id): str(status) for job_id, status in found}
    return [_view(row, statuses.get(row.last_request_id or "")) for row in rows]


async def _get(session: AsyncSession, owner: str, reference: str) -> CronJob:
    """By id, or by name."""
    by = CronJob.id == reference if is_id(reference) else CronJob.name == reference
    cron = (await session.execute(select(CronJob).where(CronJob.owner_id == owner, by))).scalar_one_or_none()
    if cron is None:
        raise errors.not_found("cron job", reference)
    return cron


def _taken(name: str) -> Problem:
    return Problem("conflict", f"You have a cron job {name!r} already; choose another name or change that one.")


@router.post("", status_code=201, response_model=CronView, summary="Run a script at given times")
async def create(
    world: TheWorld, caller: Writer, body: CronRequest, once: Annotated[Once | None, Depends(the_once)]
) -> Response:
    async def make(session: AsyncSession) -> Earlier:
        taken = await session.execute(
            select(CronJob.id).where(CronJob.owner_id == caller.user_id, CronJob.name == body.name)
        )
        if taken.scalar_one_or_none() is not None:
            raise _taken(body.name)
        await check_room(session, CronJob, caller.user_id, world.settings.max_records, "cron jobs")
        moment_ms = now_ms()
        enabled, zone = body.enabled is not False, body.timezone or "UTC"
        row = CronJob(
            id=new_id(),
            owner_id=caller.user_id,
            name=body.name,
            cron_expression=body.cron_expression,
            timezone=zone,
            script=body.script,
            workspace=body.workspace_id,
            environment=body.environment or {},
            persistent=bool(body.persistent),
            enabled=enabled,
            next_ms=next_after(body.cron_expression, zone, moment_ms) if enabled else None,
            last_ms=None,
            last_request_id=None,
            last_error=None,
            run_count=0,
            created_ms=moment_ms,
        )
        session.add(row)
        await session.flush()
        return Earlier(201, with_warnings(_view(row, None), body))

    try:
        answer, _ = await exactly_once(world.db, caller.user_id, once, make)
    except IntegrityError:
        raise _taken(body.name) from None
    return Json(answer.body, status_code=answer.status)


@router.get("", response_model=CronList, summary="List cron jobs")
async def list_cron(world: TheWorld, caller: Reader) -> Response:
    async with world.db.read() as session:
        rows = (
            await session.execute(
                select(CronJob).where(CronJob.owner_id == caller.user_id).order_by(CronJob.created_ms, CronJob.id)
            )
        ).scalars().all()  # fmt: skip
        views = await _views(session, caller.user_id, rows)
    return Json({"cron_jobs": views, "total": len(views)})


@router.get("/{id}", response_model=CronView, summary="One cron job")
async def one(world: TheWorld, caller: Reader, id: Reference) -> Response:
    async with world.db.read() as session:
        views = await _views(session, caller.user_id, [await _get(session, caller.user_id, id)])
    return Json(views[0])


@router.patch("/{id}", response_model=CronView, summary="Change a cron job")
async def change(world: TheWorld, caller: Writer, id: Reference, body: CronChange) -> Response:
    try:
        async with world.db.write() as session:
            cron = await _get(session, caller.user_id, id)
            _apply(cron, body)
            await session.flush()
            views = await _views(session, caller.user_id, [cron])
    except IntegrityError:
        raise _taken(body.name or "") from None
    return Json(with_warnings(views[0], body))


def _apply(cron: CronJob, body: CronChange) -> None:
    cron.name = body.name or cron.name
    cron.script = body.script or cron.script
    cron.workspace = body.workspace_id or cron.workspace
    cron.environment = body.environment if body.environment is not None else cron.environment
    cron.persistent = body.persistent if body.persistent is not None else cron.persistent
    timing = (cron.cron_expression, cron.timezone, cron.enabled)
    cron.cron_expression = body.cron_expression or cron.cron_expression
    cron.timezone = body.timezone or cron.timezone
    cron.enabled = body.enabled if body.enabled is not None else cron.enabled
    if (cron.cron_expression, cron.timezone, cron.enabled) != timing:
        cron.next_ms = next_after(cron.cron_expression, cron.timezone, now_ms()) if cron.enabled else None


@router.delete("/{id}", response_model=Removed, summary="Remove a cron job")
async def remove(world: TheWorld, caller: Writer, id: Reference) -> Response:
    async with world.db.write() as session:
        cron = await _get(session, caller.user_id, id)
        await session.execute(delete(CronJob).where(CronJob.id == cron.id))
    return Json({"success": True, "id": cron.id})


@router.post("/{id}/run", status_code=202, response_model=CronFired, summary="Run it now, beside its times")
async def run_now(
    world: TheWorld, caller: Writer, id: Reference, once: Annotated[Once | None, Depends(the_once)]
) -> Response:
    async with world.db.read() as session:
        cron = await _get(session, caller.user_id, id)
    answer = await fire(world, cron, moment=now_ms(), scheduled=False, once=once)
    if answer is None:
        raise errors.not_found("cron job", id)
    return Json(answer.body, status_code=answer.status)
