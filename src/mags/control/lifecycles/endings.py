"""How jobs and VMs end in the records: the one place that writes final states.

Each function changes rows in the caller's transaction and notes in `Effects` what follows outside the database once it
is committed. All may be repeated; what is over stays as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.db import now_ms
from mags.control.lifecycles.world import World
from mags.control.models import Job, SshPort, Vm, Workspace
from mags.protocol.errors import Problem
from mags.protocol.messages import Done, Stop
from mags.protocol.states import JobStatus, VmState

log = logging.getLogger("mags.control.endings")

OPEN = (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.SLEEPING)
STEADY_MS, AGAIN_MS = 60_000, 2_000
"""A VM that never sleeps and did not live this long is started again only after a pause."""
NOT_ENDED = "The VM ended before the script did."


@dataclass
class Effects:
    """To be carried out after the commit."""

    changed: set[str] = field(default_factory=set)
    """Jobs and VMs whose waiters are woken."""
    ends: dict[str, tuple[str | None, int]] = field(default_factory=dict)
    """Jobs whose output control ends, with the reason and when."""
    vms: set[str] = field(default_factory=set)
    """VMs that lead elsewhere, or nowhere, from now on."""
    ports: set[int] = field(default_factory=set)
    due: bool = False
    """A job's next step is due: the runner should look now."""
    stale: dict[str, str] = field(default_factory=dict)
    """VM -> host: copies that must end. Where another VM has their workspace, what they sync last is refused."""

    async def apply(self, world: World) -> None:
        world.notices.tell(self.changed)
        for job_id, (error, at_ms) in self.ends.items():
            await world.publish_end(job_id, error, at_ms)
        await world.tell_edges(vms=self.vms, ports=self.ports)
        for vm_id, host_id in self.stale.items():
            world.spawn(_end_copy(world, vm_id, host_id), f"stale-{vm_id}")
        if self.due:
            world.kick.set()


async def _end_copy(world: World, vm_id: str, host_id: str) -> None:
    """End a VM that nobody wants (any more). If it can't be done now, the host's next return brings it up again."""
    try:
        await world.client.request(host_id, "stop", Stop(vm_id=vm_id), Done, timeout=60)
    except Problem as problem:
        log.info("the stale VM %s on %s was not stopped: %s", vm_id, host_id, problem.message)


async def end_job(
    session: AsyncSession,
    job: Job,
    effects: Effects,
    *,
    status: JobStatus,
    error: str | None = None,
    at_ms: int | None = None,
) -> None:
    """The job is over for good. Its exit code stays as it was recorded."""
    if job.status not in OPEN:
        return
    moment = at_ms or now_ms()
    if job.ended_ms is None:
        effects.ends[job.id] = (error, moment)
    job.status, job.error = status, error if error is not None else job.error
    job.completed_ms = moment
    job.step, job.step_ms = "", None
    effects.changed.add(job.id)
    port = (await session.execute(select(SshPort).where(SshPort.job_id == job.id))).scalar_one_or_none()
    if port is not None:
        effects.ports.add(port.port)
        await session.delete(port)
    await session.flush()


async def end_vm(
    session: AsyncSession,
    vm: Vm,
    effects: Effects,
    *,
    state: VmState,
    reason: str = "",
    at_ms: int | None = None,
    moving: Collection[str] = (),
) -> None:
    """The VM is gone: its workspace is free, and the jobs on it end or go elsewhere.

    `moving` are jobs that the caller brings up elsewhere itself.
    """
    if not vm.active:
        return
    moment = at_ms or now_ms()
    vm.active, vm.state, vm.state_ms, vm.ended_ms = False, state, moment, moment
    vm.reason = reason or None
    effects.vms.add(vm.id)
    effects.changed.add(vm.id)
    await session.flush()
    await session.execute(
        update(Workspace)
        .where(Workspace.vm_id == vm.id)
        .values(vm_id=None)
        .execution_options(synchronize_session=False)
    )
    left = select(Job).where(Job.vm_id == vm.id, Job.status.in_(OPEN)).order_by(Job.id).with_for_update()
    for job in (await session.execute(left, execution_options={"populate_existing": True})).scalars().all():
        if job.id in moving:
            continue
        await _part(session, job, vm, effects, failed=state is VmState.FAILED, reason=reason, at_ms=moment)


async def _part(
    session: AsyncSession, job: Job, vm: Vm, effects: Effects, *, failed: bool, reason: str, at_ms: int
) -> None:
    """What becomes of a job whose VM has gone."""
    if job.stop_ms is not None:
        error = reason or None if failed else None  # as wished, but not without a loss
        await end_job(session, job, effects, status=JobStatus.COMPLETED, error=error, at_ms=at_ms)
    elif job.status == JobStatus.PENDING and vm.starter != job.id:
        # It had joined the VM but never ran there: it takes another one.
        job.step, job.step_ms = "rehome", now_ms()
        effects.due = True
    elif job.persistent and job.no_sleep and failed:
        lived = at_ms - (vm.started_ms or at_ms)
        job.step, job.step_ms = "revive", now_ms() + (0 if lived >= STEADY_MS else AGAIN_MS)
        effects.due = True
    elif failed or (job.ended_ms is None and not job.persistent):
        await end_job(session, job, effects, status=JobStatus.ERROR, error=reason or NOT_ENDED, at_ms=at_ms)
    else:
        await end_job(session, job, effects, status=JobStatus.COMPLETED, at_ms=at_ms)
