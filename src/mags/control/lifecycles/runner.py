"""The look for work that nobody is doing: after a crash, after a nap, when a host fell silent, when a time has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from sqlalchemy import select, update

from mags.control.db import now_ms
from mags.control.lifecycles.discovery import Discovery
from mags.control.lifecycles.housekeeping import housekeeping
from mags.control.lifecycles.launch import launch
from mags.control.lifecycles.lost import lost_hosts, reconcile
from mags.control.lifecycles.notices import wait
from mags.control.lifecycles.submission import LEASE_MS
from mags.control.lifecycles.ticks import cron_ticks
from mags.control.lifecycles.world import World
from mags.control.models import Job
from mags.hostclient import HostView

log = logging.getLogger("mags.control.runner")

BATCH = 128
FAR_MS = 300_000
"""No step is put off for so long: one that is due later is from before the clock was set back."""

Duty = Callable[[World], Coroutine[Any, Any, None]]


def duties(world: World) -> list[Coroutine[Any, Any, None]]:
    """What is looked after until cancelled, each once per its interval, some also when kicked."""

    discovery = Discovery(world)

    def on_presence(view: HostView, anew: bool) -> None:
        discovery.hear(view)
        if anew:
            world.spawn(reconcile(world, view.host_id), f"reconcile-{view.host_id}")
            world.kick.set()

    world.hosts.listen(on_presence)
    return [
        # Leases are renewed beside all else: no slow duty may let them run out.
        _every(world, LEASE_MS / 4000, renew_leases),
        _every(world, world.settings.poll_interval_s, housekeeping),
        _every(world, world.settings.poll_interval_s, due_jobs, lost_hosts, cron_ticks, kick=True),
    ]


async def _every(world: World, seconds: float, *duties: Duty, kick: bool = False) -> None:
    event = world.kick if kick else asyncio.Event()
    while True:
        for duty in duties:
            try:
                await duty(world)
            except Exception:
                log.exception("%s failed; trying again", duty.__name__)
        await wait(event, seconds)


async def renew_leases(world: World) -> None:
    """Keep others from the jobs that this control is working on."""
    if world.leased:
        async with world.db.write() as session:
            await session.execute(
                update(Job)
                .where(Job.id.in_(list(world.leased)), Job.step_ms.is_not(None), Job.step_ms < now_ms() + LEASE_MS // 2)
                .values(step_ms=now_ms() + LEASE_MS)
            )


async def due_jobs(world: World) -> None:
    """Take up jobs whose step is due. Each is leased by compare-and-swap, so only one control takes it."""
    async with world.db.read() as session:
        rows = (
            await session.execute(
                select(Job.id, Job.step_ms)
                .where((Job.step_ms <= now_ms()) | (Job.step_ms > now_ms() + FAR_MS), Job.id.not_in(list(world.leased)))
                .order_by(Job.step_ms, Job.created_ms)
                .limit(BATCH)
            )
        ).all()
    for job_id, step_ms in rows:
        async with world.db.write() as session:
            took = await session.execute(
                update(Job).where(Job.id == job_id, Job.step_ms == step_ms).values(step_ms=now_ms() + LEASE_MS)
            )
        if took.rowcount:  # type: ignore[attr-defined]
            world.spawn(launch(world, job_id), f"job-{job_id}")
