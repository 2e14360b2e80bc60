"""A host that is to be taken out of service: no new VM comes, and those that are there are put away.

scripts that run       are waited for
VMs that stand still   end once they have done so for a minute: their disks are away, and nothing is to be waited for
parked VMs             end, their workspaces synced: the next run of these is on another host
VMs that stay          fall asleep, synced; once this host is lost they wake on another one
"""

from __future__ import annotations

import asyncio
import logging

from mags.host.machines.capacity import Capacity
from mags.host.machines.fleet import Fleet
from mags.host.machines.machine import Machine
from mags.host.machines.problems import as_problem
from mags.protocol.states import VmState

log = logging.getLogger(__name__)

LOOK_S = 0.5
STILL_S = 60.0


async def depart(fleet: Fleet, capacity: Capacity) -> None:
    """Returns when every VM is gone or sleeps."""
    capacity.close()
    said: dict[str, str] = {}
    left = -1
    while awake := [machine for machine in fleet.machines if not machine.is_put_away]:
        if len(awake) != left:
            left = len(awake)
            log.info("%d VMs are still to be put away", left)
        await asyncio.gather(*(_put_away(machine, said) for machine in awake))
        await asyncio.sleep(LOOK_S)


async def _put_away(machine: Machine, said: dict[str, str]) -> None:
    record, cell = machine.record, machine.uptime.cell
    try:
        if cell is not None and cell.vm.stall.lasted_s >= STILL_S:
            log.warning("VM %s is stopped, as it stands still: %s", machine.vm_id, cell.vm.stall.reason)
            await machine.stop()
        elif record.keep == "stay" or (record.attachment is None and machine.state is VmState.PARKED):
            await machine.sleep(force=True)
        elif machine.state is VmState.PARKED:
            await machine.stop()
    except Exception as error:
        problem = as_problem(error)
        if said.get(machine.vm_id) != problem.message:
            said[machine.vm_id] = problem.message
            log.warning("VM %s can't be put away yet: %s", machine.vm_id, problem.message)
