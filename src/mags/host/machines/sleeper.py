r"""How one machine's VM falls asleep; the driver's own steps, so that nothing else happens to the VM meanwhile. (And
back: `waker`.)

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
from mags.host.machines import idle, slumber
from mags.host.machines.cells import Cell
from mags.host.machines.inbox import Prepared
from mags.host.machines.problems import as_problem
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
SECURE_S = 30.0
ENDING_S = 2.0
"""For the ends of scripts to be told."""
TROUBLE = (VmmError, NetworkError, ChannelClosed, GuestError, TimeoutError, OSError)


class Sleeper:
    """Of one machine. All but `wish` is for its driver."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._answers: list[asyncio.Future[None]] = []
        self.preparing = False
        self.forced = False
        """Whether neither use nor wish is to keep it awake, as its host goes down."""

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
            machine.record.used_mb = round(await cell.vm.memory_mb())
        except Exception as error:
            problem = as_problem(error)
        finally:
            self.preparing = False
        machine.tell(Prepared(problem))

    async def fall_asleep(self, problem: Problem | None) -> None:
        """The last step, if it is still wished, or the VM still idle."""
        machine = self._machine
        if machine.state is VmState.SLEEPING:
            self._answer(None)
            return
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
        if self.forced:
            await self._secure()
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
            if self.forced and not machine.keeper.has:
                await machine.uptime.sleep_on_disk(f"It could not be saved before its host went down: {error}")
                return None
            await machine.keeper.go_on(cell)
            machine.gate.open()
            return as_problem(error)
        await machine.attendants.dismiss()
        try:
            await slumber.save(cell)
        except VmmError as error:
            if self.forced:
                await machine.uptime.sleep_on_disk(f"It could not be saved before its host went down: {error}")
                return None
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
            machine.uptime.lifeline.fail(f"The VM ended when it was to sleep: {error}")
            return
        await machine.keeper.thaw()
        await machine.uptime.rise(cell)
        log.warning("VM %s can't sleep: %s", machine.vm_id, why)

    async def _secure(self) -> None:
        """The host goes down: what was saved must be on its disk before anybody is told."""
        cells, record = self._machine.parts.cells, self._machine.record
        try:
            async with asyncio.timeout(SECURE_S):
                await cells.vmm.flush(cells.directory(record))
        except (OSError, TimeoutError) as error:
            log.warning("what was saved of VM %s is not safe on disk yet: %s", record.vm_id, error)

    async def _stay_awake(self, problem: Problem) -> None:
        machine = self._machine
        machine.touch()
        self.forced = False
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


def _count(inside: int, requests: int) -> str:
    """What somebody uses the VM for, in words."""
    sessions = "1 command, session or transfer" if inside == 1 else f"{inside} commands or sessions"
    answers = "1 request to its URL" if requests == 1 else f"{requests} requests to its URLs"
    return " and ".join(words for words, number in ((sessions, inside), (answers, requests)) if number)
