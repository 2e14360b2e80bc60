r"""Sleep and wake of one machine's VM; the driver's own steps, so that nothing else happens to the VM meanwhile.

    awake --wished, or idle--> preparing (the VM is used as ever: workspace synced, memory's base copied)
                                   |
             in use again <--------+--> gate shut --> guest flushed --> attendants dismissed --> saved: asleep
                                                          |                                       |
                                     awake again <--------+--(can't be saved)      awake <--woken-+
                                                                     awake, afresh <--no memory---'

Whoever comes while the gate is shut waits and has put a `Wake` into the inbox: it comes right after.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mags.host.guest import ChannelClosed, GuestError
from mags.host.machines import adoption, idle, slumber
from mags.host.machines.cells import Cell
from mags.host.machines.inbox import Died, Prepared, Wake
from mags.host.machines.problems import as_problem
from mags.host.machines.record import StartupRecord
from mags.host.machines.roster import seen
from mags.host.network import NetworkError
from mags.host.vmm.driver import VmmError
from mags.protocol.errors import Problem
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine

log = logging.getLogger(__name__)

IN_USE_S = 2.0
"""How long a sleep that somebody wishes waits for what is under way."""
AGAIN_S = 0.1
"""Between two looks, meanwhile."""
FLUSH_S = 20.0
ENDING_S = 2.0
"""For the ends of scripts to be told."""
TROUBLE = (VmmError, NetworkError, ChannelClosed, GuestError, TimeoutError, OSError)
LOST = "The VM has lost its memory, and the script with it"


class Sleeper:
    """Of one machine. All but `wish` is for its driver."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._answers: list[asyncio.Future[None]] = []
        self.preparing = False
        self.forced = False
        """Whether neither use nor wish is to keep it awake, as its host goes down."""

    # --- to sleep -------------------------------------------------------------------------------------------------

    def wish(self, *, force: bool = False) -> asyncio.Future[None]:
        """Resolves when it sleeps, or can't. The driver must hear of it (`inbox.Sleep`)."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(seen)
        self._answers.append(answer)
        self.forced |= force
        return answer

    def prepare(self) -> None:
        """Begin; the driver hears `inbox.Prepared`."""
        machine = self._machine
        if machine.state is VmState.SLEEPING:
            self._answer(None)
        elif not self.preparing:
            self.preparing = True
            machine.attendants.spawn(self._prepare(), "prepare sleep")

    async def _prepare(self) -> None:
        """What can be done while the VM is used."""
        machine = self._machine
        problem: Problem | None = None
        try:
            cell = machine.uptime.need
            async with asyncio.timeout(FLUSH_S):
                await cell.channel.flush()
            await machine.keeper.prepare()
            await cell.vm.copy_base()
        except Exception as error:
            problem = as_problem(error)
        finally:
            self.preparing = False
        machine.tell(Prepared(problem))

    async def fall_asleep(self, problem: Problem | None) -> None:
        """The last step, if it is still wished, or the VM still idle."""
        machine = self._machine
        problem = problem or idle.keeps_awake(machine.record, force=self.forced)
        if machine.state not in (VmState.RUNNING, VmState.PARKED):
            problem = problem or Problem("conflict", f"The VM is {machine.state.value}.")
        if problem is None and not self._answers and not machine.sleepy:
            return
        if problem is None:
            problem = await self._shut()
            if problem is not None and not self._answers:
                machine.touch()  # a request to its URL, begun just now
                return
        if problem is None:
            problem = await self._settle(machine.uptime.need)
        if problem is not None:
            await self._stay_awake(problem)
            return
        self._answer(None)

    async def _shut(self) -> Problem | None:
        """Shut the gate when nobody is inside, and no edge in the middle of a request; open it again if not."""
        machine, loop = self._machine, asyncio.get_running_loop()
        gate = machine.gate
        deadline = loop.time() + (IN_USE_S if self._answers else 0.0)
        while True:
            if not self.forced:
                await gate.empty(deadline - loop.time())
            gate.shut()
            requests = await machine.callers.release()
            if self.forced or not gate.within + requests:
                return None
            words = _count(gate.within, requests)
            gate.open()
            if loop.time() >= deadline:
                return Problem("conflict", f"The VM is in use ({words}): end that first.")
            await asyncio.sleep(AGAIN_S)

    async def _settle(self, cell: Cell) -> Problem | None:
        """From the shut gate until it sleeps."""
        machine = self._machine
        try:
            cell.namespace.cut()
            async with asyncio.timeout(FLUSH_S):
                await cell.channel.flush()
            await machine.roster.endings_told(ENDING_S)
            await machine.keeper.settle()
        except (Problem, *TROUBLE) as error:
            await machine.keeper.go_on(cell)
            machine.gate.open()
            return as_problem(error)
        await machine.attendants.dismiss()
        try:
            await slumber.save(cell)
        except VmmError as error:
            await self._go_on(cell, str(error))
            return Problem("unavailable", f"The VM can't sleep: {error}")
        machine.uptime.asleep()
        return None

    async def _go_on(self, cell: Cell, why: str) -> None:
        """It could not be saved."""
        machine = self._machine
        try:
            if cell.vm.died.done():
                raise VmmError(cell.vm.died.result())
            cell = await slumber.reconnect(cell)
        except TROUBLE as error:
            machine.tell(Died(f"The VM ended when it was to sleep: {error}"))
            return
        await machine.keeper.thaw()
        await machine.uptime.rise(cell)
        log.warning("VM %s can't sleep: %s", machine.vm_id, why)

    async def _stay_awake(self, problem: Problem) -> None:
        machine = self._machine
        machine.touch()
        if not self._answers and machine.state is not VmState.FAILED:
            log.warning("VM %s does not fall asleep: %s", machine.vm_id, problem.message)
            machine.standing.announce(machine.state, problem.message)
        self._answer(problem)

    def _answer(self, problem: Problem | None) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            if not answer.done():
                answer.set_result(None) if problem is None else answer.set_exception(problem)

    def give_up(self, problem: Problem) -> None:
        """The machine's life is over."""
        self._answer(problem)

    # --- and back -------------------------------------------------------------------------------------------------

    async def wake(self) -> Problem | None:
        """Harmless if it is awake. A problem: it sleeps on, and whoever waited is told."""
        machine = self._machine
        if machine.state is not VmState.SLEEPING:
            return None
        try:
            cell, lost = await slumber.wake(machine.parts.cells, machine.record, machine.keeper)
        except Exception as error:
            problem = as_problem(error)
            log.warning("VM %s can't be woken: %s", machine.vm_id, error, exc_info=problem.code == "internal")
            machine.gate.refuse(problem)
            return problem
        if lost:
            await self._afresh(lost)
        machine.standing.to(VmState.RUNNING)
        await machine.uptime.rise(cell)
        machine.standing.announce(VmState.RUNNING, lost)
        return None

    async def revive(self, reason: str) -> bool:
        """What can be done for a VM that has died: one that never sleeps is started again on its own disk; one whose
        files are nowhere else sleeps without a memory. Whether it goes on."""
        machine = self._machine
        record = machine.record
        if machine.state not in (VmState.RUNNING, VmState.PARKED):
            return False
        if record.no_sleep and record.keep == "stay":
            return await self._start_again(reason)
        if record.keep == "job" or record.attachment is not None or not machine.uptime.need.vm.died.done():
            return False
        log.warning("VM %s sleeps without its memory: %s", machine.vm_id, reason)
        machine.gate.shut()
        await machine.uptime.bury()
        machine.uptime.asleep(reason)
        if machine.gate.inside:
            machine.tell(Wake())
        return True

    async def _start_again(self, reason: str) -> bool:
        machine = self._machine
        log.warning("VM %s is started again: %s", machine.vm_id, reason)
        machine.gate.shut()
        await machine.uptime.bury()
        try:
            await machine.keeper.salvage()
            cell = await slumber.restart(machine.parts.cells, machine.record, machine.keeper)
        except Exception as error:
            log.error("VM %s can't be started again: %s", machine.vm_id, error)
            return False
        await self._afresh(reason)
        await machine.uptime.rise(cell)
        machine.standing.announce(VmState.RUNNING, f"{reason} It was started again.")
        return True

    async def _afresh(self, reason: str) -> None:
        """It runs without its memory: its scripts are over, its startup command begins."""
        machine = self._machine
        record = machine.record
        record.startup = StartupRecord() if record.startup_command else None
        machine.uptime.startup_process = None
        await adoption.tell_lost(machine, f"{LOST}: {reason.rstrip('.')}.")


def _count(inside: int, requests: int) -> str:
    """What somebody uses the VM for, in words."""
    sessions = "1 command, session or transfer" if inside == 1 else f"{inside} commands or sessions"
    answers = "1 request to its URL" if requests == 1 else f"{requests} requests to its URLs"
    return " and ".join(words for words, number in ((sessions, inside), (answers, requests)) if number)
