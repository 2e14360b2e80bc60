"""The end of a machine: its scripts, its VM, and the news of it. The record goes last, so that a crash in between is
made good by the next host program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mags.host.machines import adoption
from mags.host.machines.jobs import STOPPED
from mags.host.machines.wishes import Denied, Wish, judge
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine


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
    elif cell is not None:
        machine.standing.write()
        if final is VmState.GONE:
            await machine.roster.end_all(machine.parts.settings.stop_grace_s)
            await machine.keeper.finish(cell)
        machine.uptime.lifeline.cut(reason or STOPPED)
        await cell.vm.kill()
        await cell.channel.aclose()
        await machine.roster.all_told()
        if final is VmState.FAILED:
            await machine.keeper.salvage()
    if machine.dispatcher.dispatched:
        await machine.standing.publish(final, reason)
    if cell is not None:
        await machine.parts.cells.close(cell)
    elif asleep:
        await machine.parts.cells.clean(machine.record)
    await machine.keeper.release()
    machine.standing.to(final)
