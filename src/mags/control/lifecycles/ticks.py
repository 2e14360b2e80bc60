"""Cron: submitting what is due. A tick is claimed by compare-and-swap on `next_ms`, so two servers never run one twice.

A tick that was missed while no server was up runs once on return, however many there were; then the schedule goes on
from the present. So it does when the clock was set back: a tick that was planned by the wrong clock is planned anew.
"""

from __future__ import annotations

import logging

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.db import now_ms
from mags.control.lifecycles.launch import launch
from mags.control.lifecycles.schedule import next_after
from mags.control.lifecycles.submission import submit
from mags.control.lifecycles.wishes import JobWish
from mags.control.lifecycles.world import World
from mags.control.models import CronJob
from mags.control.records.accounts import caller_of
from mags.control.records.idempotency import Earlier, Once, exactly_once
from mags.kit.jumps import MINUTE
from mags.protocol.errors import Problem

log = logging.getLogger("mags.control.cron")

BATCH = 64
AGAIN_MS = 30_000
"""A tick that no host could take now is tried again after this."""


async def cron_ticks(world: World) -> None:
    """Submit every cron job that is due now."""
    jump = world.clock.last()
    if jump is None or jump < -MINUTE:
        await _plan_anew(world)
    moment = now_ms()
    async with world.db.read() as session:
        due = (
            (
                await session.execute(
                    select(CronJob)
                    .where(CronJob.enabled.is_(True), CronJob.next_ms.is_not(None), CronJob.next_ms <= moment)
                    .order_by(CronJob.next_ms)
                    .limit(BATCH)
                )
            )
            .scalars()
            .all()
        )
    for cron in due:
        try:
            await fire(world, cron, moment=moment)
        except Problem as problem:
            log.warning("cron job %s could not run: %s", cron.id, problem.message)
            await _postpone(world, cron, problem, moment)


async def fire(
    world: World,
    cron: CronJob,
    *,
    moment: int,
    scheduled: bool = True,
    once: Once | None = None,
) -> Earlier | None:
    """Run it now; None when another server has taken this tick, or the cron job is gone."""

    async def make(session: AsyncSession) -> Earlier:
        if scheduled and not await _claim(session, cron, moment):
            return Earlier(0, {})
        caller = await caller_of(session, cron.owner_id)
        submitted = await submit(world, session, caller, cron_wish(cron))
        await session.execute(
            update(CronJob)
            .where(CronJob.id == cron.id)
            .values(last_ms=moment, last_request_id=submitted.job_id, last_error=None, run_count=CronJob.run_count + 1)
        )
        message = f"Cron job {cron.name!r} runs now."
        return Earlier(202, {"request_id": submitted.job_id, "status": "accepted", "message": message})

    answer, made = await exactly_once(world.db, cron.owner_id, once, make)
    if not answer.status:
        return None
    if made:
        job_id = str(answer.body["request_id"])
        world.spawn(launch(world, job_id), f"job-{job_id}")
    return answer


async def _plan_anew(world: World) -> None:
    """No next tick is later than the schedule says."""
    moment = now_ms()
    ahead = select(CronJob).where(CronJob.enabled.is_(True), CronJob.next_ms > moment)
    async with world.db.read() as session:
        planned = (await session.execute(ahead)).scalars().all()
    for cron in planned:
        following = next_after(cron.cron_expression, cron.timezone, moment)
        if following is not None and cron.next_ms is not None and following < cron.next_ms:
            async with world.db.write() as session:
                await session.execute(
                    update(CronJob)
                    .where(CronJob.id == cron.id, CronJob.next_ms == cron.next_ms)
                    .values(next_ms=following)
                )


async def _claim(session: AsyncSession, cron: CronJob, moment: int) -> bool:
    following = next_after(cron.cron_expression, cron.timezone, moment)
    claim = await session.execute(
        update(CronJob)
        .where(CronJob.id == cron.id, CronJob.next_ms == cron.next_ms, CronJob.enabled.is_(True))
        .values(next_ms=following)
    )
    return bool(claim.rowcount)  # type: ignore[attr-defined]


def cron_wish(cron: CronJob) -> JobWish:
    return JobWish(
        script=cron.script,
        name=cron.name,
        workspace=cron.workspace,
        persistent=cron.persistent,
        environment=cron.environment,
        cron_id=cron.id,
    )


async def _postpone(world: World, cron: CronJob, problem: Problem, moment: int) -> None:
    """No capacity: soon again. Anything else: at the next tick, with the reason in the record."""
    soon = problem.code in ("no_capacity", "rate_limited", "unavailable", "not_available")
    following = moment + AGAIN_MS if soon else next_after(cron.cron_expression, cron.timezone, moment)
    async with world.db.write() as session:
        await session.execute(
            update(CronJob)
            .where(CronJob.id == cron.id, CronJob.next_ms == cron.next_ms)
            .values(next_ms=following, last_error=problem.message)
        )
