"""What is swept now and then: jobs that ended long ago, answers of old idempotency keys, data of deleted workspaces,
bytes of files that nobody has."""

from __future__ import annotations

import logging

from sqlalchemy import delete, select, update

from mags.control.db import now_ms
from mags.control.lifecycles import uploads
from mags.control.lifecycles.candidates import STORAGE_OK
from mags.control.lifecycles.world import World
from mags.control.models import Vm, Workspace
from mags.control.records.idempotency import forget_old
from mags.control.records.retention import old_jobs, old_vms, remove_jobs, remove_vms
from mags.protocol import subjects
from mags.protocol.errors import Problem
from mags.protocol.messages import Done, Drop

log = logging.getLogger("mags.control.housekeeping")

BATCH = 16
JOBS_BATCH = 200
"""Jobs that are forgotten at once: while they are removed, others wait for the database."""


async def housekeeping(world: World) -> None:
    await drop_deleted(world)
    await forget_old_jobs(world)
    if world.swept():
        async with world.db.write() as session:
            await forget_old(session)
        await uploads.sweep(world)


async def forget_old_jobs(world: World) -> None:
    """A batch of the jobs and VMs whose time is over, and what is left of the jobs' output."""
    moment = now_ms()
    before = moment - int(world.settings.job_retention_s * 1000)
    async with world.db.read() as session:
        jobs = await old_jobs(session, ended_before_ms=before, limit=JOBS_BATCH)
        vms = await old_vms(session, ended_before_ms=before, limit=JOBS_BATCH)
    if jobs or vms:
        async with world.db.write() as session:
            await remove_jobs(session, jobs)
            await remove_vms(session, vms)
        log.info("forgot %d jobs and %d VMs that ended long ago", len(jobs), len(vms))
    for job_id, ended_ms in jobs.items():
        if moment - ended_ms < subjects.OUTPUT_MAX_AGE_S * 1000:
            await world.jetstream.purge_stream(subjects.OUTPUT_STREAM, subject=subjects.output(job_id))


async def drop_deleted(world: World) -> None:
    """Have a host remove the data of deleted workspaces, then forget them."""
    async with world.db.read() as session:
        rows = (
            await session.execute(select(Workspace.id, Workspace.synced).where(Workspace.deleted_ms > 0).limit(BATCH))
        ).all()
    host = next((view for view in world.hosts.live() if view.presence.storage == STORAGE_OK), None)
    for workspace_id, synced in rows:
        if synced:
            if host is None:
                continue
            try:
                await world.client.request(host.host_id, "drop", Drop(workspace_id=workspace_id), Done, timeout=120)
            except Problem as problem:
                log.info("workspace %s could not be removed yet: %s", workspace_id, problem.message)
                continue
        async with world.db.write() as session:
            await session.execute(update(Vm).where(Vm.workspace_id == workspace_id).values(workspace_id=None))
            await session.execute(delete(Workspace).where(Workspace.id == workspace_id))
