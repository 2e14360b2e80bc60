"""Going on with what an earlier host program left: its VMs, their scripts, every byte of their output.

record + living VM   the machine goes on: its scripts' output from the last byte stored
record + dead VM     its scripts end in error, the rest is removed
record of the pool   its VM is ended; the pool fills again
anything else        an orphan: ended and removed (`Cells.sweep`)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mags.host.guest import Offsets, ProcessInfo
from mags.host.machines.cells import Cell
from mags.host.machines.jobs import STOPPED, Job
from mags.protocol.errors import Problem
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine

log = logging.getLogger(__name__)

DIED = "The VM ended while its host program was down."
NOT_STARTED = "The host program ended before the script could start: start it again."


async def readopt(machine: Machine) -> Cell:
    """The machine's VM as it was left, its scripts followed again. Raises Problem when there is none to go on with."""
    record, cells = machine.record, machine.parts.cells
    machine.dispatched = True
    machine.dispatcher.adopted()
    cell = await cells.adopt(record) if record.state is not VmState.FAILED else None
    if cell is None:
        reason = STOPPED if record.state is VmState.STOPPING else record.reason or DIED
        for left in list(record.jobs.values()):
            job = machine.roster.add(left)
            await job.writer.recover()
            await job.tell(None, reason)
        await cells.clean(record)
        raise Problem("gone", reason)
    await _take_up(machine, cell)
    if record.state is VmState.STOPPING:
        machine.finish()
    elif not record.jobs and record.keep == "job":
        # Nothing was given to it, or all was told and only its end is missing.
        if record.state is VmState.RESTORING:
            await cells.close(cell)
            raise Problem("gone", NOT_STARTED)
        machine.finish()
    elif record.state is VmState.RESTORING:
        record.state = VmState.RUNNING
    log.info("adopted VM %s (%s), %d scripts", machine.vm_id, record.state.value, len(record.jobs))
    return cell


async def _take_up(machine: Machine, cell: Cell) -> None:
    """Attach to every script where its stored output ends; end whatever else the earlier program had begun."""
    held = {process.id: process for process in cell.channel.hello.processes}
    for left in list(machine.record.jobs.values()):
        if left.process_id is None and len(held) == 1:
            left.process_id = next(iter(held))
        info = held.pop(left.process_id, None) if left.process_id is not None else None
        if info is None:  # told and released, or never given
            del machine.record.jobs[left.job_id]
            continue
        job = machine.roster.add(left)
        await job.writer.recover()
        start = _start(job, info)
        machine.follow(job, cell.channel.attach(info.id, start), start)
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
