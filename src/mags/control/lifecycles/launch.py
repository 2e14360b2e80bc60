"""A job's way to a running script.

    place --host chosen--> start --answered--> (events carry it on)
      ^                      |
      +---host refused-------+         rehome: its VM is gone, record another one   -> start
                                       revive: a no_sleep VM was lost, the same     -> start
                                       stop:   somebody wishes it                   -> over

The VM's first job starts it (`start`), every other one runs in it (`run`). A host that refuses, or was not reached, has
not started anything: the VM may go elsewhere. When the outcome is not known, only the same host is asked again, with
the same request, which it answers as it did the first time. So each script is started exactly once.
"""

from __future__ import annotations

import asyncio
import logging
import time

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.db import now_ms
from mags.control.lifecycles.barrier import events_recorded
from mags.control.lifecycles.candidates import place
from mags.control.lifecycles.endings import OPEN, Effects, end_job, end_vm
from mags.control.lifecycles.notices import wait
from mags.control.lifecycles.rehoming import leave_lost_host, rehome
from mags.control.lifecycles.release import release
from mags.control.lifecycles.requests import run_request, start_request
from mags.control.lifecycles.rows import hold
from mags.control.lifecycles.starts import Tuning, note_answered
from mags.control.lifecycles.steps import Done, Hop, Nap, Next
from mags.control.lifecycles.stopping import stop_step
from mags.control.lifecycles.submission import LEASE_MS
from mags.control.lifecycles.syncing import sync_if_up
from mags.control.lifecycles.world import World
from mags.control.models import Job, Vm
from mags.control.placement import Need
from mags.hostclient import HostState
from mags.protocol.errors import Problem
from mags.protocol.messages import Adjust, Start, Started
from mags.protocol.messages import Done as Adjusted
from mags.protocol.states import JobStatus, VmState

log = logging.getLogger("mags.control.launch")

ELSEWHERE = ("no_capacity", "unavailable")
"""Refusals after which another host may be asked."""
VM_GONE = ("not_found", "gone")
REFUSED_FOR = 1.0
"""Seconds that a host which refused a VM is not asked for another one."""
ADJUST_TIMEOUT = 30.0
JOIN_WAIT = 2.0
"""Seconds between two looks at a VM that another job is starting."""


async def launch(world: World, job_id: str, recorded: tuple[Job, Vm] | None = None) -> None:
    """Take a job's steps until it naps or is done. The caller has leased it (by `step_ms`).

    `recorded`: the records, where the caller has just made them.
    """
    world.leased.add(job_id)
    try:
        while True:
            following = await _step(world, job_id, recorded)
            recorded = None
            if isinstance(following, Hop):
                await _note(world, job_id, following.step, LEASE_MS)
                continue
            world.leased.discard(job_id)
            if isinstance(following, Nap):
                await _note(world, job_id, following.step, round(following.seconds * 1000))
            return
    finally:
        world.leased.discard(job_id)


async def _note(world: World, job_id: str, step: str, due_in_ms: int) -> None:
    async with world.db.write() as session:
        await session.execute(
            update(Job)
            .where(Job.id == job_id, Job.status.in_(OPEN))
            .values(step=step, step_ms=now_ms() + due_in_ms, tries=Job.tries + 1)
        )


async def _step(world: World, job_id: str, recorded: tuple[Job, Vm] | None) -> Next:
    if recorded is None:
        async with world.db.read() as session:
            row = (
                await session.execute(select(Job, Vm).join(Vm, Vm.id == Job.vm_id).where(Job.id == job_id))
            ).one_or_none()
        if row is None:
            return Done()
        recorded = row[0], row[1]
    job, vm = recorded
    if job.status not in OPEN:
        return Done()
    if job.step == "stop" or (job.stop_ms is not None and _not_sent(job, vm)):
        return await stop_step(world, job, vm)
    if job.step in ("rehome", "revive"):
        return await rehome(world, job.id, revive=job.step == "revive")
    if job.status != JobStatus.PENDING and not vm.revive:
        return Done()
    if not vm.active:
        return await rehome(world, job.id, revive=False) if vm.starter != job.id else Done()
    if vm.host_id is None:
        return await _place(world, job, vm)
    if vm.starter == job.id:
        return await _start(world, job, vm, vm.host_id)
    return await _run(world, job, vm, vm.host_id)


def _not_sent(job: Job, vm: Vm) -> bool:
    """No request for this job's script can be on its way to a host."""
    return job.step != "start" or vm.host_id is None or (vm.starter != job.id and not vm.started)


async def _place(world: World, job: Job, vm: Vm) -> Next:
    effects = Effects()
    async with world.db.write() as session:
        choice = await place(world, session, Need(memory_mb=vm.memory_mb, image=vm.image, storage=vm.attached))
        if choice.host_id is not None:
            await session.execute(update(Vm).where(Vm.id == vm.id, Vm.host_id.is_(None)).values(host_id=choice.host_id))
            return Hop("start")
        if now_ms() - vm.created_ms < world.settings.queue_timeout_s * 1000:
            return Nap(min(2.0, 0.2 * (1 + job.tries)), "place")
        reason = f"No host could take it within {world.settings.queue_timeout_s:g} s: {choice.reason}"
        await _give_up(session, vm.id, effects, reason)
    await effects.apply(world)
    return Done()


async def _start(world: World, job: Job, vm: Vm, host_id: str) -> Next:
    gate = world.gate(host_id)
    if not await _turn(world, job.id, gate):
        return Hop("stop")
    try:
        if vm.base_id is not None:
            await sync_if_up(world, vm.base_id)
        async with world.db.read() as session:
            request = await start_request(session, job, vm)
        started = await world.client.request(host_id, "start", request, Started, timeout=world.settings.start_timeout_s)
    except Problem as problem:
        return await _start_failed(world, job, vm, host_id, problem)
    finally:
        gate.release()
    world.refused.pop(host_id, None)
    return await _record_started(world, job.id, vm.id, started, host_id, request)


async def _turn(world: World, job_id: str, gate: asyncio.Semaphore) -> bool:
    """Wait for a turn at the host. False, without one, when the job is to stop."""
    if not gate.locked():
        return await gate.acquire()
    with world.notices.watch(job_id) as event:
        while True:
            turn, notice = asyncio.ensure_future(gate.acquire()), asyncio.ensure_future(event.wait())
            try:
                await asyncio.wait({turn, notice}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                notice.cancel()
                if not turn.done():
                    turn.cancel()
            await asyncio.wait({turn, notice})
            if not turn.cancelled():
                return True
            event.clear()
            async with world.db.read() as session:
                if (await session.execute(select(Job.stop_ms).where(Job.id == job_id))).scalar_one() is not None:
                    return False


async def _start_failed(world: World, job: Job, vm: Vm, host_id: str, problem: Problem) -> Next:
    if problem.code in ELSEWHERE:
        world.refused[host_id] = time.monotonic() + REFUSED_FOR
        async with world.db.write() as session:
            await session.execute(update(Vm).where(Vm.id == vm.id, Vm.started.is_(False)).values(host_id=None))
        return Hop("place")
    if problem.code == "outcome_unknown":
        if world.hosts.state(host_id) is not HostState.LOST:
            return Nap(1.0, "start")
        problem = Problem("internal", f"Host {host_id} was lost while it started the VM.")
    if problem.code == "gone" and await _has_ended(world, job.id):
        return Done()  # it ran, and its end was reported, while we did not know whether it had started
    log.warning("job %s could not start on %s: %s", job.id, host_id, problem.message)
    effects = Effects()
    async with world.db.write() as session:
        await _give_up(session, vm.id, effects, problem.message)
    await effects.apply(world)
    return Done()


async def _has_ended(world: World, job_id: str) -> bool:
    await events_recorded(world)
    async with world.db.read() as session:
        job = await session.get(Job, job_id)
        return job is None or job.ended_ms is not None


async def _give_up(session: AsyncSession, vm_id: str, effects: Effects, reason: str) -> None:
    vm = await hold(session, Vm, vm_id)
    if vm is None:
        return
    starter = await hold(session, Job, vm.starter)
    if starter is not None:
        await end_job(session, starter, effects, status=JobStatus.ERROR, error=reason)
    await end_vm(session, vm, effects, state=VmState.FAILED, reason=reason)


async def _record_started(
    world: World, job_id: str, vm_id: str, started: Started, host_id: str, sent: Start | None = None
) -> Next:
    """The end may have been recorded before: answer and event travel apart. `sent`: what the VM came up with."""
    async with world.db.write() as session:
        stopping, wished = await note_answered(session, job_id, vm_id, started)
    world.notices.tell((job_id, vm_id))
    await world.tell_edges(vms=(vm_id,))
    if sent is not None and wished != (sent.no_sleep, sent.startup_command, sent.idle_timeout_s):
        world.spawn(_tune(world, host_id, vm_id, wished), f"tune-{vm_id}")
    return Hop("stop") if stopping else Done()


async def _tune(world: World, host_id: str, vm_id: str, wished: Tuning) -> None:
    """Somebody has changed how it sleeps while it was being started."""
    no_sleep, startup_command, idle_timeout_s = wished
    adjust = Adjust(
        vm_id=vm_id, no_sleep=no_sleep, startup_command=startup_command or "", idle_timeout_s=idle_timeout_s
    )
    try:
        await world.client.request(host_id, "adjust", adjust, Adjusted, timeout=ADJUST_TIMEOUT)
    except Problem as problem:
        log.warning("VM %s could not be told what was changed: %s", vm_id, problem.message)


async def _run(world: World, job: Job, vm: Vm, host_id: str) -> Next:
    if not vm.started:
        with world.notices.watch(vm.id, job.id) as event:
            await wait(event, JOIN_WAIT)
        return Hop(job.step)
    try:
        async with world.db.read() as session:
            request = await run_request(session, job, vm)
        started = await world.client.request(host_id, "run", request, Started, timeout=world.settings.start_timeout_s)
    except Problem as problem:
        return await _run_failed(world, job, vm, problem)
    return await _record_started(world, job.id, vm.id, started, host_id)


async def _run_failed(world: World, job: Job, vm: Vm, problem: Problem) -> Next:
    if problem.code in VM_GONE:
        await release(world, vm.id, state=VmState.GONE, reason=problem.message)
        return Hop("rehome")
    if problem.code in ("unavailable", "outcome_unknown", "no_capacity", "conflict"):
        if vm.host_id is None or world.hosts.state(vm.host_id) is not HostState.LOST:
            return Nap(1.0, "start")
        if vm.attached:
            for moved in await leave_lost_host(world, vm.id):
                world.spawn(launch(world, moved), f"revive-{moved}")
            return Hop("rehome")
        if now_ms() - job.created_ms < world.settings.queue_timeout_s * 1000:
            return Nap(1.0, "start")
        problem = Problem("unavailable", f"Host {vm.host_id}, which has the workspace's only copy, is away.")
    effects = Effects()
    async with world.db.write() as session:
        held = await hold(session, Job, job.id)
        if held is not None:
            await end_job(session, held, effects, status=JobStatus.ERROR, error=problem.message)
    await effects.apply(world)
    return Done()
