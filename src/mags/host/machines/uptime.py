r"""The time in which one VM is up: from when it has a process until it falls asleep, dies or ends. For the machine's
driver and its steps.

    [began] --open (the guest is told, others may use it)--> [in use] --(saved)--> asleep --(woken)--> rise
                                                                  \--(died)--> bury --(started again)--> rise
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mags.host.guest import ChannelClosed, ProcessInfo
from mags.host.machines import adoption, stalls, startup
from mags.host.machines.cells import Cell
from mags.host.machines.events import now_ms
from mags.host.machines.inbox import Died
from mags.host.machines.lifeline import Lifeline
from mags.host.machines.vigil import Vigil
from mags.protocol.errors import Problem
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine


log = logging.getLogger(__name__)


class Uptime:
    """Of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.cell: Cell | None = None
        """None: it is not up yet, or sleeps. `need` is for those who can't do without."""
        self.lifeline = self._new_lifeline()
        self.startup_process: ProcessInfo | None = None
        """The startup command's, if it was left running."""

    @property
    def need(self) -> Cell:
        """The VM. Raises Problem when it has no process."""
        if self.cell is None:
            raise Problem("unavailable", "The VM is not up: try again in a moment.")
        return self.cell

    def begin(self, cell: Cell) -> None:
        """It has a process; its guest need not have been told yet."""
        self.cell = cell
        self._machine.attendants.attend(self.lifeline.watch(cell), "watch")

    def open(self) -> None:
        """The guest is configured: execs and sessions may begin. Harmless if repeated."""
        machine, cell = self._machine, self.need
        if machine.gate.is_open:
            return
        machine.touch()
        attend = machine.attendants.attend
        attend(self.lifeline.pulse(cell), "pulse")
        attend(stalls.watch(machine, cell), "stalls")
        if machine.keeper.has:
            attend(machine.keeper.attend(cell), "workspace")
        if machine.record.keep != "job":
            attend(Vigil(machine, cell).run(), "vigil")
        if machine.record.startup is not None:
            attend(startup.run(machine, cell, self.startup_process), "startup")
            self.startup_process = None
        machine.gate.open()

    async def rise(self, cell: Cell) -> None:
        """The VM is up again, and told: go on with its scripts and let everybody in."""
        machine = self._machine
        self.begin(cell)
        try:
            await adoption.take_up(machine, cell)
        except ChannelClosed:
            return  # the lifeline finds out why
        except (Problem, ValueError) as error:
            self.lifeline.fail(f"The VM has failed: {error}")
            return
        self.open()
        machine.standing.write()

    def asleep(self, reason: str = "") -> None:
        """The VM has no process any more. What it was saved as is made safe in the background."""
        machine = self._machine
        self.cell, self.lifeline = None, self._new_lifeline()
        machine.roster.jobs.clear()
        machine.record.slept_at_ms = now_ms()
        machine.patience.begin()
        machine.standing.to(VmState.SLEEPING)
        machine.standing.write()
        machine.standing.announce(VmState.SLEEPING, reason)
        cells = machine.parts.cells
        machine.attendants.spawn(cells.vmm.flush(cells.directory(machine.record)), "flush")

    async def sleep_on_disk(self, reason: str) -> None:
        """It is ended, if it is not dead, and sleeps without a memory: it starts afresh on its disk when it is used."""
        log.warning("VM %s sleeps without its memory: %s", self._machine.vm_id, reason)
        self._machine.gate.shut()
        await self.bury(reason)
        self.asleep(reason)

    async def bury(self, reason: str) -> None:
        """The VM has died, and is to be started again: its scripts are told of, and nothing of it is left but files."""
        machine, cell = self._machine, self.need
        self.lifeline.cut(reason)
        await cell.channel.aclose()
        await cell.vm.kill()
        await machine.roster.all_told()
        for job_id in list(machine.roster.jobs):
            machine.roster.drop(job_id)
        await machine.attendants.dismiss()
        self.cell, self.lifeline = None, self._new_lifeline()

    def _new_lifeline(self) -> Lifeline:
        return Lifeline(self._machine.parts.settings, lambda reason: self._machine.tell(Died(reason)))
