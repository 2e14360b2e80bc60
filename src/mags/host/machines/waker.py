"""How one machine's VM comes up again: from sleep, or when it has died; the driver's own steps.

asleep --memory to be had--> woken, or afresh on its own disk if its image is of no use --> in use
   ^----not now----'
died --no_sleep--> afresh;  --its files are nowhere else--> asleep, on its disk only;  --else--> over
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mags.host.machines import adoption, slumber
from mags.host.machines.inbox import Wake
from mags.host.machines.problems import as_problem
from mags.protocol.errors import Problem
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
"""How long who wants in waits for the host to have memory again."""


class Waker:
    """Of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.short = False
        """Whether the host had no memory for it when it was to wake last."""

    async def wake(self) -> Problem | None:
        """Harmless if it is awake. A problem: it sleeps on, and whoever waited is told; only for memory they wait on,
        so try again soon."""
        machine = self._machine
        if machine.state is not VmState.SLEEPING:
            return None
        problem = self._no_memory()
        if problem is not None:
            return problem
        try:
            with machine.parts.capacity.promised(machine.record.used_mb):
                cell, lost = await slumber.wake(machine.parts.cells, machine.record, machine.keeper)
        except Exception as error:
            problem = as_problem(error)
            log.warning("VM %s can't be woken: %s", machine.vm_id, error, exc_info=problem.code == "internal")
            machine.gate.refuse(problem)
            return problem
        machine.sleeper.forced = False
        if lost:
            await self._afresh(lost)
        machine.standing.to(VmState.RUNNING)
        await machine.uptime.rise(cell)
        machine.standing.announce(VmState.RUNNING, lost)
        return None

    def _no_memory(self) -> Problem | None:
        """Why it can't wake now, if so. Others are asked to make room, and whoever has waited for long is sent away."""
        machine = self._machine
        verdict = machine.parts.capacity.wake_verdict(machine.record.used_mb)
        if verdict.accepting:
            self.short = False
            return None
        problem = Problem("no_capacity", f"The VM can't wake now. {verdict.reason}", retry_after=5)
        machine.parts.capacity.ask_for_room(machine.record.used_mb)
        machine.gate.refuse(problem, waited_s=PATIENCE_S)
        if not self.short:
            self.short = True
            log.warning("VM %s can't wake: %s", machine.vm_id, verdict.reason)
            machine.standing.announce(VmState.SLEEPING, problem.message)
        return problem

    async def revive(self, reason: str) -> bool:
        """What can be done for a VM that has died, or does not answer: one that never sleeps is started again on its
        own disk; one whose files are nowhere else sleeps without a memory, unless its guest broke the protocol.
        Whether it goes on."""
        machine = self._machine
        record = machine.record
        if machine.state not in (VmState.RUNNING, VmState.PARKED):
            return False
        if record.no_sleep and record.keep == "stay":
            return await self._start_again(reason)
        cell = machine.uptime.need
        broken = cell.channel.closed.done() and not cell.vm.died.done()
        if record.keep == "job" or record.attachment is not None or broken:
            return False
        await machine.uptime.sleep_on_disk(reason)
        if machine.gate.inside:
            machine.tell(Wake())
        return True

    async def _start_again(self, reason: str) -> bool:
        machine = self._machine
        log.warning("VM %s is started again: %s", machine.vm_id, reason)
        machine.gate.shut()
        await machine.uptime.bury(reason)
        try:
            await machine.keeper.salvage()
            cell = await slumber.restart(machine.parts.cells, machine.record, machine.keeper)
        except Exception as error:
            log.error("VM %s can't be started again: %s", machine.vm_id, error)
            return await self._give_up_here(f"{reason} It can't be started again: {error}")
        await self._afresh(reason)
        await machine.uptime.rise(cell)
        machine.standing.announce(VmState.RUNNING, f"{reason} It was started again.")
        return True

    async def _give_up_here(self, reason: str) -> bool:
        """It can't be started again now. What is in a workspace may be elsewhere; what is here only is tried again."""
        machine = self._machine
        if machine.keeper.has:
            await machine.parts.cells.clean(machine.record)
            return False
        machine.uptime.asleep(reason)
        return True

    async def _afresh(self, reason: str) -> None:
        """It runs without its memory: its scripts are over."""
        machine = self._machine
        machine.uptime.startup_process = None
        await adoption.tell_lost(machine, f"{adoption.LOST}: {reason.rstrip('.')}.")
