"""Stopping a job: a full sync, then its VM ends. A run in a VM that others use only ends its own script."""

from __future__ import annotations

import asyncio

from sqlalchemy import update

from mags.control.db import now_ms
from mags.control.lifecycles.endings import OPEN, Effects, end_job, end_vm
from mags.control.lifecycles.release import release
from mags.control.lifecycles.rows import hold
from mags.control.lifecycles.steps import Done, Nap, Next
from mags.control.lifecycles.world import World
from mags.control.models import Job, Vm
from mags.control.records import jobs
from mags.hostclient import HostState
from mags.protocol import messages
from mags.protocol.errors import Problem
from mags.protocol.messages import Cancel, Stop
from mags.protocol.states import JobStatus, VmState

AGAIN = 2.0
"""Seconds until a host that was not reached is asked again."""
END_WAIT = 10.0
"""Seconds that a cancelled script's end may take to be reported."""


async def stop_step(world: World, job: Job, vm: Vm) -> Next:
    """One try. Repeatable: hosts say Done to a second stop, and what is over stays over."""
    async with world.db.read() as session:
        others = [other for other in await jobs.open_on_vm(session, job.owner_id, vm.id) if other.id != job.id]
    if not vm.active or vm.host_id is None or (vm.starter != job.id and not vm.started):
        await record_stop(world, job.id, None if others or vm.host_id is not None else vm.id)
        return Done()
    try:
        if others and not job.persistent:
            return await _cancel(world, job, vm, vm.host_id)
        await world.client.request(
            vm.host_id, "stop", Stop(vm_id=vm.id), messages.Done, timeout=world.settings.stop_timeout_s
        )
    except Problem as problem:
        if problem.code not in ("not_found", "gone") and world.hosts.state(vm.host_id) is not HostState.LOST:
            return Nap(AGAIN, "stop")
    await release(world, vm.id, state=VmState.GONE, reason="stopped")
    await record_stop(world, job.id, None)
    return Done()


async def stop_left_vm(world: World, job: Job) -> None:
    """End the VM that a finished job has left parked, unless another job uses it. Raises Problem."""
    if job.vm_id is None:
        return
    async with world.db.read() as session:
        vm = await session.get(Vm, job.vm_id)
        used = bool(await jobs.open_on_vm(session, job.owner_id, job.vm_id))
    if vm is None or not vm.active or vm.host_id is None or used:
        return
    try:
        await world.client.request(
            vm.host_id, "stop", Stop(vm_id=vm.id), messages.Done, timeout=world.settings.stop_timeout_s
        )
    except Problem as problem:
        if problem.code not in ("not_found", "gone"):
            raise
    await release(world, vm.id, state=VmState.GONE, reason="stopped")


async def _cancel(world: World, job: Job, vm: Vm, host_id: str) -> Next:
    with world.notices.watch(job.id) as event:
        await world.client.request(
            host_id, "cancel", Cancel(vm_id=vm.id, job_id=job.id), messages.Done, timeout=world.settings.stop_timeout_s
        )
        deadline = asyncio.get_running_loop().time() + END_WAIT
        while not await _is_over(world, job.id):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                await record_stop(world, job.id, None)
                break
            try:
                async with asyncio.timeout(min(left, 0.5)):
                    await event.wait()
            except TimeoutError:
                pass
            event.clear()
    return Done()


async def _is_over(world: World, job_id: str) -> bool:
    async with world.db.read() as session:
        job = await session.get(Job, job_id)
        return job is None or job.status not in OPEN


async def record_stop(world: World, job_id: str, vm_id: str | None) -> None:
    """Record the stop; with `vm_id` also a VM that never came to be."""
    effects = Effects()
    async with world.db.write() as session:
        vm = await hold(session, Vm, vm_id) if vm_id is not None else None
        job = await hold(session, Job, job_id)
        if job is not None:
            await end_job(session, job, effects, status=JobStatus.COMPLETED)
        if vm is not None and vm.host_id is None:
            await end_vm(session, vm, effects, state=VmState.GONE, reason="stopped")
    await effects.apply(world)


async def wish_stop(world: World, job: Job, lease_ms: int) -> bool:
    """Record the wish. True when the caller now has the job's lease and must drive it on; else somebody else does."""
    async with world.db.write() as session:
        await session.execute(update(Job).where(Job.id == job.id, Job.stop_ms.is_(None)).values(stop_ms=now_ms()))
        took = await session.execute(
            update(Job)
            .where(Job.id == job.id, Job.status.in_(OPEN), Job.step.in_(("", "place", "rehome", "revive")))
            .values(step="stop", step_ms=now_ms() + lease_ms)
        )
    world.notices.tell((job.id,))
    return bool(took.rowcount)  # type: ignore[attr-defined]
