"""Going on with what an earlier host program left: its VMs, their scripts, every byte of their output.

record + living VM   the machine goes on: its scripts' output from the last byte stored
record + VM on disk  it sleeps, also when it was about to fall asleep or to wake
record + dead VM     its scripts end in error; a VM that was to stay sleeps on without its memory if its disk is all
                     that there is of its files, any other is removed
record of the pool   its VM is ended; the pool fills again
anything else        an orphan: ended and removed (`Cells.sweep`)
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mags.host.guest import ChannelClosed, GuestError, Offsets, ProcessInfo
from mags.host.machines import slumber, welcome
from mags.host.machines.cells import Cell
from mags.host.machines.events import now_ms
from mags.host.machines.farewell import see_saved
from mags.host.machines.inbox import Stop
from mags.host.machines.jobs import STOPPED, Job
from mags.host.machines.record import JobRecord
from mags.protocol.errors import Problem
from mags.protocol.messages import Started
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine

log = logging.getLogger(__name__)

DIED = "The VM ended while its host program was down."
LOST = "The VM has lost its memory, and the script with it"
NOT_STARTED = "The host program ended before the script could start: start it again."


async def readopt(machine: Machine) -> Cell | None:
    """The machine's VM as it was left, its scripts followed again; None when it sleeps. Raises Problem when there is
    nothing to go on with."""
    record, cells = machine.record, machine.parts.cells
    machine.dispatcher.adopted()
    cell = await cells.adopt(record) if record.state is not VmState.FAILED else None
    if cell is None:
        return await _without_process(machine)
    # It may have stood still; and one that was just coming up has not been told yet.
    told = cell.channel.hello.root_mounted and record.state is not VmState.RESTORING
    if not told:
        await _greet(machine, cell)
    try:
        if told:
            await cell.channel.configure(welcome.again(record.environment))
        await take_up(machine, cell)
    except (Problem, GuestError, ChannelClosed, TimeoutError, ValueError) as error:
        log.warning("VM %s can't be gone on with: %s", machine.vm_id, error)
        machine.uptime.cell = cell
        await machine.uptime.bury(reason := f"The VM has failed: {error}")
        return await _without_process(machine, reason)
    if record.state is VmState.STOPPING:
        machine.tell(Stop())
    elif not record.jobs and record.keep == "job":
        # Nothing was given to it, or all was told and only its end is missing.
        if record.state is VmState.RESTORING:
            await cells.close(cell)
            raise Problem("gone", NOT_STARTED)
        machine.tell(Stop())
    elif record.state in (VmState.RESTORING, VmState.SLEEPING):
        record.state = VmState.RUNNING
        machine.standing.announce(VmState.RUNNING)
    log.info("adopted VM %s (%s), %d scripts", machine.vm_id, record.state.value, len(record.jobs))
    return cell


async def _greet(machine: Machine, cell: Cell) -> None:
    """One that was just coming up, and has not written to its disk yet."""
    try:
        await machine.keeper.begin(cell.vm, cell.namespace.host_address)
        environment, keeper = machine.record.environment, machine.keeper
        await cell.channel.configure(welcome.first(environment, jfs=keeper.jfs, disk_bytes=cell.vm.disk_bytes))
    except BaseException:
        await asyncio.shield(machine.parts.cells.close(cell))
        raise


async def _without_process(machine: Machine, reason: str = DIED) -> Cell | None:
    """It sleeps, or can go on from its own disk, or is over. `reason`: why it has no process."""
    record, cells = machine.record, machine.parts.cells
    goes_on = record.state not in (VmState.FAILED, VmState.STOPPING) and record.keep != "job"
    if goes_on and (record.state is VmState.SLEEPING or cells.vmm.asleep(cells.directory(record))):
        _sleeps(machine)
        return None
    if goes_on and record.attachment is None and cells.directory(record).exists():
        return await _from_disk(machine, reason)
    reason = STOPPED if record.state is VmState.STOPPING else record.reason or reason
    await tell_lost(machine, reason)
    await see_saved(machine, machine.keeper.salvage(), reason)
    await machine.keeper.release()
    await cells.clean(record)
    raise Problem("gone", reason)


async def _from_disk(machine: Machine, reason: str) -> Cell | None:
    """Its VM is dead, as after a restart of the machine, but the files on its disk are all there is of them: it sleeps
    without a memory, or is started at once if it never sleeps."""
    record = machine.record
    log.warning("VM %s is without its memory: %s", machine.vm_id, reason)
    await tell_lost(machine, reason)
    if record.no_sleep and record.keep == "stay":
        try:
            cell = await slumber.restart(machine.parts.cells, record, machine.keeper)
            record.state = VmState.RUNNING
            return cell
        except Exception as error:
            log.error("VM %s can't be started again yet: %s", machine.vm_id, error)
    _sleeps(machine)
    return None


def _sleeps(machine: Machine) -> None:
    """What it was saved as may not have been made safe by the earlier program."""
    cells = machine.parts.cells
    machine.attendants.spawn(cells.vmm.flush(cells.directory(machine.record)), "flush")
    machine.attendants.spawn(machine.keeper.hold(), "hold the workspace")
    if machine.state is not VmState.SLEEPING:
        machine.record.state, machine.record.slept_at_ms = VmState.SLEEPING, now_ms()
        machine.patience.begin()
        machine.standing.write()
        machine.standing.announce(VmState.SLEEPING)


async def tell_lost(machine: Machine, reason: str) -> None:
    """The scripts that the VM had are over."""
    for left in list(machine.record.jobs.values()):
        await _tell_lost(machine, left, reason)
        machine.roster.drop(left.job_id)


async def _tell_lost(machine: Machine, left: JobRecord, reason: str) -> None:
    job = machine.roster.add(left)
    await job.writer.recover()
    await job.tell(None, reason)


async def take_up(machine: Machine, cell: Cell) -> None:
    """Attach to every script where its stored output ends; end whatever else the earlier program had begun."""
    held = {process.id: process for process in cell.channel.hello.processes}
    startup = machine.record.startup
    if startup is not None and startup.process_id is not None:
        machine.uptime.startup_process = held.pop(startup.process_id, None)
    for left in list(machine.record.jobs.values()):
        if left.process_id is None and len(held) == 1:
            left.process_id = next(iter(held))
        info = held.pop(left.process_id, None) if left.process_id is not None else None
        if info is None:
            # Told and released; or never given, or not read by the guest yet, and then not answered: it is asked for
            # again. Or lost, if the earlier program was about to wake it.
            if machine.state is VmState.SLEEPING:
                await _tell_lost(machine, left, f"{LOST}.")
            machine.roster.drop(left.job_id)
            continue
        # Perhaps not answered: who asks again must not have it run twice.
        left.started = left.started or Started(start_kind="warm", boot_ms=0, started_at_ms=now_ms())
        job = machine.roster.add(left)
        await job.writer.recover()
        start = _start(job, info)
        machine.runs.follow(job, cell.channel.attach(info.id, start), start)
        if left.cancelled:
            machine.cancel(left.job_id)
    for info in held.values():
        await cell.channel.attach(info.id, info.acknowledged).release()


def _start(job: Job, info: ProcessInfo) -> Offsets:
    """From where on the guest is to send again."""
    if job.writer.ended:
        return info.written
    stdout, stderr = job.writer.position
    kept, written = info.acknowledged, info.written
    if stdout > written.stdout or stderr > written.stderr:
        raise Problem("guest_failed", "The guest denies output that it has sent: its VM can't be trusted.")
    start = Offsets(max(stdout, kept.stdout), max(stderr, kept.stderr), kept.result)
    job.writer.start_at(start.stdout, start.stderr)
    return start
