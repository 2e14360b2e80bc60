"""One report of a host, recorded. Reports may come twice, late, and about things that are over."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.db import now_ms
from mags.control.lifecycles.endings import OPEN, Effects, end_job, end_vm
from mags.control.lifecycles.rows import hold, lock
from mags.control.lifecycles.simple_ends import end_simply
from mags.control.lifecycles.starts import note_started
from mags.control.lifecycles.syncing import commit
from mags.control.models import Job, Vm
from mags.protocol.messages import JobEnded, VmChanged, WorkspaceSynced
from mags.protocol.states import FINAL_VM_STATES, JobStatus, VmState


async def job_ended(session: AsyncSession, event: JobEnded, effects: Effects) -> None:
    """A script ended. A persistent job goes on as long as its VM does; any other one is over."""
    await lock(session, Vm, event.vm_id)
    if await end_simply(session, event, effects):
        return
    job = await hold(session, Job, event.job_id)
    if job is None or job.vm_id != event.vm_id or job.ended_ms is not None:
        return
    if job.status not in OPEN:
        job.exit_code = event.exit_code if job.exit_code is None else job.exit_code
        return
    moment = event.ended_at_ms or now_ms()
    job.exit_code, job.cpu_ms, job.ended_ms = event.exit_code, event.cpu_ms, moment
    if event.started is not None and job.start_kind is None:
        await note_started(session, job.id, event.vm_id, event.started)
    job.step, job.step_ms = ("", None) if job.step == "start" else (job.step, job.step_ms)
    effects.changed.add(job.id)
    if job.stop_ms is not None:
        await end_job(session, job, effects, status=JobStatus.COMPLETED, at_ms=moment)
    elif job.persistent:
        job.error = event.error
        job.status = JobStatus.RUNNING if job.status == JobStatus.PENDING else job.status
    elif event.error is None and event.exit_code == 0:
        await end_job(session, job, effects, status=JobStatus.COMPLETED, at_ms=moment)
    else:
        await end_job(session, job, effects, status=JobStatus.ERROR, error=event.error, at_ms=moment)


async def vm_changed(session: AsyncSession, event: VmChanged, effects: Effects) -> None:
    vm = await hold(session, Vm, event.vm_id)
    if vm is None:
        return
    try:
        state = VmState(event.state)
    except ValueError:
        return
    if not vm.active:
        if state not in FINAL_VM_STATES and vm.host_id is not None and event.at_ms > (vm.ended_ms or 0):
            effects.stale[vm.id] = vm.host_id
        return
    if state in FINAL_VM_STATES:  # whatever the time: nothing comes after, and its host's clock may have been set back
        await end_vm(session, vm, effects, state=state, reason=event.reason, at_ms=event.at_ms or None)
        return
    if event.at_ms < vm.state_ms:
        return
    if state != vm.state:
        vm.state, vm.state_ms = state, event.at_ms
    vm.reason = event.reason or None
    effects.changed.add(vm.id)
    await session.flush()
    if state in (VmState.RUNNING, VmState.PARKED, VmState.SLEEPING):
        await follow_vm(session, vm, effects)


async def follow_vm(session: AsyncSession, vm: Vm, effects: Effects) -> None:
    """Let the jobs of a VM sleep and wake with it."""
    asleep = vm.state == VmState.SLEEPING
    before, after = (JobStatus.RUNNING, JobStatus.SLEEPING) if asleep else (JobStatus.SLEEPING, JobStatus.RUNNING)
    changed = (
        await session.execute(
            update(Job)
            .where(Job.vm_id == vm.id, Job.status == before)
            .values(status=after.value)
            .returning(Job.id)
            .execution_options(synchronize_session="fetch")
        )
    ).scalars()
    effects.changed.update(changed)


async def workspace_synced(session: AsyncSession, event: WorkspaceSynced, effects: Effects) -> None:
    held = await commit(
        session,
        event.workspace_id,
        epoch=event.epoch,
        generation=event.generation,
        at_ms=event.at_ms,
        size_bytes=event.size_bytes,
    )
    if held:
        return
    vm = await hold(session, Vm, event.vm_id)
    if vm is not None and vm.host_id is not None and vm.epoch == event.epoch and not vm.discard:
        effects.stale[vm.id] = vm.host_id
        await end_vm(
            session, vm, effects, state=VmState.FAILED, reason="Its workspace has been given to another VM meanwhile."
        )
