"""Another VM for a job whose own has gone: before its script could run in it, or because the job must go on."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.db import now_ms
from mags.control.lifecycles.barrier import events_recorded
from mags.control.lifecycles.endings import OPEN, Effects, end_job, end_vm
from mags.control.lifecycles.rows import hold
from mags.control.lifecycles.steps import Done, Hop, Nap, Next
from mags.control.lifecycles.submission import LEASE_MS, attach
from mags.control.lifecycles.world import World
from mags.control.models import Job, Vm, Workspace
from mags.hostclient import HostState
from mags.protocol.ids import new_id
from mags.protocol.states import JobStatus, VmState

LOST_FILES = "The VM was lost, and its files were only on its own disk."


async def rehome(world: World, job_id: str, *, revive: bool) -> Next:
    """Record a VM like the one that is gone, or join the one that has the workspace by now.

    `revive`: the script has run before, so the new VM runs the startup command instead. Without synced files there is
    nothing to revive from: the job ends in error then, unless it never sleeps (its startup command begins anew).
    """
    effects = Effects()
    async with world.db.write() as session:
        job = await hold(session, Job, job_id)
        if job is None or job.status not in OPEN or job.vm_id is None:
            return Done()
        old = await session.get(Vm, job.vm_id)
        if old is None or old.active:
            return Hop("start")
        if not revive and await _is_reviving(session, old.id):
            return Nap(0.2, "rehome")  # whose VM stays makes the new one, and this job joins that
        workspace = await session.get(Workspace, old.workspace_id) if old.workspace_id is not None else None
        if revive and not old.attached and not job.no_sleep:
            await end_job(session, job, effects, status=JobStatus.ERROR, error=old.reason or LOST_FILES)
        elif workspace is not None and workspace.vm_id is not None:
            job.vm_id = workspace.vm_id
            return Hop("start")
        else:
            vm = _like(old, job, revive=revive)
            session.add(vm)
            await session.flush()
            if workspace is not None and not await attach(session, workspace, vm):
                await session.delete(vm)
                return Nap(0.2, "revive" if revive else "rehome")
            job.vm_id = vm.id
            if job.status == JobStatus.SLEEPING:  # somebody wants it: it wakes, on another host
                job.status = JobStatus.RUNNING
            return Hop("place")
    await effects.apply(world)
    return Done()


async def leave_lost_host(world: World, vm_id: str) -> Sequence[str]:
    """Give up a VM whose host is lost and whose files are synced; the jobs that stay are brought up elsewhere.

    Those whose `launch` the caller is to begin; none when somebody else is at it, or nothing stays.
    """
    await events_recorded(world)
    effects = Effects()
    async with world.db.write() as session:
        vm = await hold(session, Vm, vm_id)
        if vm is None or not vm.active or vm.host_id is None:
            return ()
        if world.hosts.state(vm.host_id) is not HostState.LOST:
            return ()  # it has come back meanwhile
        moving = (
            (
                await session.execute(
                    update(Job)
                    .where(Job.vm_id == vm_id, Job.persistent.is_(True), Job.status.in_(OPEN))
                    .where(Job.step == "", Job.stop_ms.is_(None))
                    .values(step="revive", step_ms=now_ms() + LEASE_MS)
                    .returning(Job.id)
                )
            )
            .scalars()
            .all()
        )
        await end_vm(session, vm, effects, state=VmState.FAILED, reason="Its host was lost.", moving=moving)
    await effects.apply(world)
    return moving


async def _is_reviving(session: AsyncSession, vm_id: str) -> bool:
    found = select(Job.id).where(Job.vm_id == vm_id, Job.step == "revive", Job.status.in_(OPEN)).limit(1)
    return (await session.execute(found)).scalar_one_or_none() is not None


def _like(old: Vm, job: Job, *, revive: bool) -> Vm:
    return Vm(
        id=new_id(),
        owner_id=old.owner_id,
        host_id=None,
        state=VmState.RESTORING,
        state_ms=0,
        active=True,
        started=False,
        starter=job.id,
        keep="stay" if job.persistent else "park" if old.workspace_id is not None else "job",
        workspace_id=old.workspace_id,
        attached=old.attached,
        epoch=0,
        base_id=old.base_id,
        discard=old.discard,
        revive=revive,
        image=old.image,
        vcpus=old.vcpus,
        memory_mb=old.memory_mb,
        disk_gb=old.disk_gb,
        environment=old.environment,
        startup_command=job.startup_command,
        no_sleep=job.no_sleep,
        idle_timeout_s=old.idle_timeout_s,
        created_ms=now_ms(),
        started_ms=None,
        ended_ms=None,
        reason=None,
    )
