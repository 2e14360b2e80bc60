"""How a new machine comes by its VM: from the pool, else a clone of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mags.host.machines.cells import Cell, new_handle, shape
from mags.host.machines.record import Record, StartupRecord
from mags.host.network import Namespace
from mags.host.vmm.driver import Vm
from mags.kit.tasks import end
from mags.protocol.messages import Start

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine


def record_of(start: Start) -> Record:
    """What is to be known of the machine."""
    return Record(
        handle=new_handle(),
        spec=start.spec,
        uid=0,
        vm_id=start.vm_id,
        owner=start.owner,
        keep=start.keep,
        name=start.name,
        environment=start.environment,
        startup_command=start.startup_command,
        idle_timeout_s=start.idle_timeout_s,
        no_sleep=start.no_sleep,
        attachment=start.attachment,
        home=start.script.job_id,
        startup=StartupRecord() if start.revive and start.startup_command else None,
    )


async def bear(machine: Machine) -> Cell:
    """A VM for the machine; raises as `Cells.make`, and Problem when it can't have its workspace."""
    parts, record = machine.parts, machine.record
    if record.attachment is not None:
        return await _bear_with_workspace(machine)
    cell = parts.pool.take(record.spec)
    if cell is None:
        machine.dispatcher.origin = "clone" if parts.cells.vmm.ready(shape(record.spec)) else "cold"
        return await parts.cells.make(record)
    machine.dispatcher.resume(cell)
    record.handle, record.uid, record.namespace = cell.record.handle, cell.record.uid, cell.record.namespace
    cell.record = record
    return cell


async def _bear_with_workspace(machine: Machine) -> Cell:
    """A clone on the workspace's disk; the guest has not written to it yet."""
    parts, record = machine.parts, machine.record
    machine.dispatcher.origin = "clone" if parts.cells.vmm.ready(shape(record.spec)) else "cold"
    keeper = machine.keeper
    disk = await keeper.disk()
    begun: list[asyncio.Task[None]] = []

    def begin(vm: Vm, namespace: Namespace) -> None:
        begun.append(asyncio.create_task(keeper.begin(vm, namespace.host_address)))

    try:
        cell = await parts.cells.make(record, work_disk=disk, on_running=begin)
        try:
            await asyncio.gather(*begun)
        except BaseException:
            await asyncio.shield(parts.cells.close(cell))
            raise
    finally:
        await end(begun)
    machine.dispatcher.jfs = keeper.jfs
    return cell
