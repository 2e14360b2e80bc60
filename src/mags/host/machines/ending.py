"""The end of a machine: its scripts, its VM, and the news of it. The record goes last, so that a crash in between is
made good by the next host program."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mags.host.machines import adoption
from mags.host.machines.cells import Cell
from mags.host.machines.farewell import see_saved
from mags.host.machines.jobs import STOPPED
from mags.host.machines.wishes import Denied, Wish, judge
from mags.host.vmm.driver import VmmError
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine

log = logging.getLogger(__name__)


async def wind_up(machine: Machine, final: VmState, reason: str) -> None:
    """`final`: gone or failed. The scripts of a VM that ends well get the chance to end by themselves."""
    asleep, cell = machine.state is VmState.SLEEPING, machine.uptime.cell
    machine.record.reason = reason
    machine.standing.to(VmState.FAILED if final is VmState.FAILED else VmState.STOPPING)
    verdict = judge(machine.state, Wish.USE, reason=reason)
    if isinstance(verdict, Denied):
        machine.gate.refuse(verdict.problem)
    if asleep:
        machine.standing.write()
        await adoption.tell_lost(machine, reason or STOPPED)
    told = False
    if cell is not None:
        machine.standing.write()
        synced = False
        if final is VmState.GONE:
            await machine.roster.end_all(machine.parts.settings.stop_grace_s)
            synced = await machine.keeper.finish(cell)
        machine.uptime.lifeline.cut(reason or STOPPED)
        told = await see_saved(machine, _end(machine, cell, synced=synced), reason or STOPPED)
    if machine.dispatcher.dispatched and not told:
        await machine.standing.publish(final, reason)
    if cell is not None:
        await machine.parts.cells.close(cell)
    elif asleep:
        await machine.parts.cells.clean(machine.record)
    await machine.keeper.release()
    machine.standing.to(final)


async def _end(machine: Machine, cell: Cell, *, synced: bool) -> None:
    """A hypervisor that waits for its disk ends when it has its answer, and not before."""
    ended = await _try_to_kill(machine, cell)
    await cell.channel.aclose()
    await machine.roster.all_told()
    while not ended:
        ended = await _try_to_kill(machine, cell)
    if not synced:
        await machine.keeper.salvage()


async def _try_to_kill(machine: Machine, cell: Cell) -> bool:
    try:
        await cell.vm.kill()
    except VmmError as error:
        log.warning("VM %s does not end yet: %s", machine.vm_id, error)
        return False
    return True
