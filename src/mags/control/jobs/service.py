"""What can be done with jobs, apart from their output and their VMs' insides."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.db import now_ms
from mags.control.http import with_warnings
from mags.control.http.times import moment
from mags.control.jobs.schemas import JobChange, JobRequest
from mags.control.jobs.views import full_view, status_view
from mags.control.lifecycles.launch import launch
from mags.control.lifecycles.notices import wait
from mags.control.lifecycles.reaching import reach
from mags.control.lifecycles.removal import removed_ms
from mags.control.lifecycles.stopping import stop_left_vm, wish_stop
from mags.control.lifecycles.submission import LEASE_MS, submit
from mags.control.lifecycles.syncing import sync as sync_now
from mags.control.lifecycles.world import World
from mags.control.models import Job, Vm
from mags.control.records import jobs
from mags.control.records.accounts import Caller
from mags.control.records.idempotency import Earlier, Once, exactly_once
from mags.hostclient import HostState
from mags.protocol.errors import Problem
from mags.protocol.messages import Adjust, Done, VmRequest
from mags.protocol.states import FINAL_JOB_STATUSES, VmState

POWER_TIMEOUT = 300.0
ADJUST_TIMEOUT = 30.0


async def create(world: World, caller: Caller, request: JobRequest, once: Once | None) -> Earlier:
    """Record the job and start its lifecycle beside the request."""

    recorded: tuple[Job, Vm] | None = None

    async def make(session: AsyncSession) -> Earlier:
        nonlocal recorded
        submitted = await submit(world, session, caller, request.wish())
        recorded = submitted.recorded
        body = {
            "request_id": submitted.job_id,
            "status": "accepted",
            "message": f"Job {submitted.name!r} is accepted.",
            "name": submitted.name,
        }
        return Earlier(202, with_warnings(body, request))

    answer, made = await exactly_once(world.db, caller.user_id, once, make)
    if made:
        job_id = str(answer.body["request_id"])
        world.spawn(launch(world, job_id, recorded), f"job-{job_id}")
        await asyncio.sleep(0)  # its first request to a host is on its way before this answer is
    return answer


async def status(world: World, caller: Caller, reference: str) -> dict[str, Any]:
    async with world.db.read() as session:
        job, vm = await jobs.get_with_vm(session, caller.user_id, reference)
    return status_view(job, vm, world.settings)


async def record(world: World, caller: Caller, reference: str) -> dict[str, Any]:
    async with world.db.read() as session:
        job, vm = await jobs.get_with_vm(session, caller.user_id, reference)
    return full_view(job, vm, world.settings, removed_ms(world, vm))


async def page(
    world: World,
    caller: Caller,
    *,
    number: int,
    size: int,
    status: str | None,
    workspace: str | None,
    name: str | None,
) -> dict[str, Any]:
    async with world.db.read() as session:
        rows, total = await jobs.page(
            session,
            caller.user_id,
            offset=(number - 1) * size,
            limit=size,
            status=status,
            workspace=workspace,
            name=name,
        )
    return {
        "jobs": [status_view(job, vm, world.settings) for job, vm in rows],
        "total": total,
        "page": number,
        "page_size": size,
    }


async def change(world: World, caller: Caller, reference: str, request: JobChange) -> dict[str, Any]:
    """Tell the host of a VM that is up, then record the change: what was refused, or not heard, is not recorded."""
    tuning = request.no_sleep is not None or request.startup_command is not None or request.idle_timeout is not None
    async with world.db.read() as session:
        job, vm = await jobs.get_with_vm(session, caller.user_id, reference)
    if tuning:
        _check_tunable(job, request)
        if vm is not None and vm.active and vm.started:
            await _tell_host(world, vm, request)
    async with world.db.write() as session:
        job, vm = await jobs.get_with_vm(session, caller.user_id, job.id)
        if request.name is not None:
            job.name = request.name
        if tuning:
            _check_tunable(job, request)
            _tune(job, vm, request)
    return with_warnings(full_view(job, vm, world.settings, removed_ms(world, vm)), request)


async def _tell_host(world: World, vm: Vm, request: JobChange) -> None:
    """Nobody, when the host is lost: the VM comes up elsewhere as the records say."""
    if vm.host_id is None or world.hosts.state(vm.host_id) is HostState.LOST:
        return
    wish = Adjust(
        vm_id=vm.id,
        idle_timeout_s=request.idle_timeout,
        no_sleep=request.no_sleep,
        startup_command=request.startup_command,
    )
    await world.client.request(vm.host_id, "adjust", wish, Done, timeout=ADJUST_TIMEOUT)


def _check_tunable(job: Job, request: JobChange) -> None:
    """Only open persistent jobs have such settings."""
    if not job.persistent:
        if request.no_sleep:
            raise Problem("invalid", "no_sleep requires a persistent job.", fields={"no_sleep": "not persistent"})
        raise Problem("conflict", f"{job.name!r} is not persistent, so it has no such settings.")
    if job.status in FINAL_JOB_STATUSES:
        raise Problem("conflict", f"{job.name!r} is {job.status}; run it again to change how it runs.")


def _tune(job: Job, vm: Vm | None, request: JobChange) -> None:
    if request.no_sleep is not None:
        job.no_sleep = request.no_sleep
    if request.startup_command is not None:
        job.startup_command = request.startup_command or None
    if vm is not None:
        vm.no_sleep, vm.startup_command = job.no_sleep, job.startup_command
        vm.idle_timeout_s = request.idle_timeout or vm.idle_timeout_s


async def stop(world: World, caller: Caller, reference: str) -> dict[str, Any]:
    """Returns when it has stopped (or, should its host be away, when the wish is recorded)."""
    async with world.db.read() as session:
        job = await jobs.get(session, caller.user_id, reference)
    if job.status not in FINAL_JOB_STATUSES:
        if await wish_stop(world, job, LEASE_MS):
            work = asyncio.ensure_future(launch(world, job.id))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                world.spawn(_wait_for(work), f"stop-{job.id}")
                raise
        job = await _settled(world, caller, job.id)
    else:
        await stop_left_vm(world, job)
    words = "is stopped" if job.status in FINAL_JOB_STATUSES else "is stopping; its host can't be reached now"
    return {
        "success": True,
        "request_id": job.id,
        "status": job.status,
        "message": f"{reference!r} {words}.{await _what_went_wrong(world, job)}",
    }


async def _what_went_wrong(world: World, job: Job) -> str:
    """At the end of its VM: a sentence, as when its last changes could not be saved yet. Empty if it ended well."""
    async with world.db.read() as session:
        vm = await session.get(Vm, job.vm_id) if job.vm_id is not None else None
    return f" {vm.reason}" if vm is not None and vm.state == VmState.FAILED and vm.reason else ""


async def _wait_for(work: asyncio.Future[None]) -> None:
    await work


async def _settled(world: World, caller: Caller, job_id: str) -> Job:
    """The job once it is over, or once its stop waits for a host that is away."""
    deadline = asyncio.get_running_loop().time() + world.settings.stop_timeout_s
    with world.notices.watch(job_id) as event:
        while True:
            async with world.db.read() as session:
                job = await jobs.get(session, caller.user_id, job_id)
            waiting = job.step == "stop" and job.step_ms is not None and job.step_ms < now_ms() + LEASE_MS // 2
            if job.status in FINAL_JOB_STATUSES or waiting or asyncio.get_running_loop().time() > deadline:
                return job
            await wait(event, 0.5)


async def sync(world: World, caller: Caller, reference: str) -> dict[str, Any]:
    reached = await reach(world, caller.user_id, reference)
    synced = await sync_now(world, reached.vm)
    return {
        "synced_at": moment(synced.synced_at_ms),
        "bytes": synced.bytes,
        "duration_ms": synced.duration_ms,
        "freeze_ms": synced.freeze_ms,
    }


async def power(world: World, caller: Caller, reference: str, verb: str) -> dict[str, Any]:
    """Sleep or wake now; persistent jobs only. Already so is fine."""
    reached = await reach(world, caller.user_id, reference)
    job, vm = reached.job, reached.vm
    if not job.persistent and vm.keep != "park":
        raise Problem("conflict", f"{job.name!r} is not persistent, so it neither sleeps nor wakes.")
    await reached.ask(verb, VmRequest(vm_id=vm.id), Done, timeout=POWER_TIMEOUT)
    return {"success": True, "request_id": job.id, "status": "sleeping" if verb == "sleep" else "running"}
