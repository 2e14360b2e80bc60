"""Drives one machine: the only one that changes its VM's state, item by item of its inbox.

    begin (a new VM, or one adopted) --> [next item] --> run | cancel | stop | ended | died | sleep | wake | too long
                                             ^------------------------'
                                                                      '--> wind up: VM gone, control told

When the host program ends before, the VM stays as it is, for the next one to adopt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mags.host.machines.cells import Cell
from mags.host.machines.ending import wind_up
from mags.host.machines.inbox import Cancel, Died, Ended, Item, Prepared, Run, Sleep, Stop, Wake
from mags.host.machines.machine import Machine
from mags.host.machines.problems import as_problem
from mags.host.machines.wishes import Denied, Wish, judge
from mags.protocol.errors import Problem
from mags.protocol.states import VmState

log = logging.getLogger(__name__)

MEMORY_S = 0.5
"""Between two looks whether there is memory for a VM that somebody wants to wake."""
COURTESY_S = 0.03
"""The end of a VM takes tens of milliseconds of processor time. Whoever waits to see its script's end recorded goes
first."""
WAKE_AGAIN_S = 10.0
"""Until a VM that never sleeps, and could not be woken, is tried again."""
OVERSLEPT = "It slept for longer than a VM is kept whose files are on its host only."


class _Over(Exception):
    """Ends the tasks of a machine whose life is over."""


class Driver:
    """`begin` brings the VM up (see `birth` and `adoption`): it answers the cell, or None when the VM sleeps, or raises
    what the caller gets. A stop that comes meanwhile interrupts it if it is `interruptible`: if what it has begun is
    undone then."""

    def __init__(
        self, machine: Machine, begin: Callable[[Machine], Awaitable[Cell | None]], *, interruptible: bool = True
    ) -> None:
        self._machine, self._begin, self._interruptible = machine, begin, interruptible

    async def drive(self) -> None:
        """The whole life. Cancelled: leaves the VM alone."""
        machine = self._machine
        try:
            async with asyncio.TaskGroup() as tasks:
                machine.attendants.within(tasks)
                end = await self._come_up(tasks) or await self._serve()
                await wind_up(machine, *end)
                raise _Over
        except* _Over:
            pass
        finally:
            if machine.uptime.cell is not None:
                await machine.uptime.cell.leave()
            ended = judge(VmState.GONE, Wish.RUN)
            if isinstance(ended, Denied):
                machine.roster.refuse_all(ended.problem)
                machine.sleeper.give_up(ended.problem)
                machine.gate.refuse(ended.problem)
            machine.gone.set()

    async def _come_up(self, tasks: asyncio.TaskGroup) -> tuple[VmState, str] | None:
        """Begin, unless a stop comes first. Answers how it ended, or None when the VM is up or sleeps."""
        machine = self._machine
        stopping = machine.state is VmState.STOPPING
        birth = tasks.create_task(self._begin_safely())
        stop = tasks.create_task(machine.stop_wished.wait())
        await asyncio.wait({birth, stop} if self._interruptible else {birth}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not birth.done():
            birth.cancel()
            await asyncio.wait({birth})
        if birth.cancelled():
            return VmState.GONE, ""
        outcome = birth.result()
        if isinstance(outcome, Problem):
            machine.roster.refuse_all(outcome)
            return VmState.GONE if stopping else VmState.FAILED, outcome.message
        if outcome is not None:
            machine.uptime.begin(outcome)
        return None

    async def _begin_safely(self) -> Cell | Problem | None:
        try:
            return await self._begin(self._machine)
        except Exception as error:
            problem = as_problem(error)
            defect = problem.code == "internal"
            log.log(
                logging.ERROR if defect else logging.WARNING,
                "VM %s did not come up: %s",
                self._machine.vm_id,
                error,
                exc_info=defect,
            )
            return problem

    async def _serve(self) -> tuple[VmState, str]:
        """Item by item, until the VM's end: how it ends."""
        machine = self._machine
        sleeper, waker, runs = machine.sleeper, machine.waker, machine.runs
        if machine.uptime.cell is not None and not machine.dispatcher.fresh:
            machine.uptime.open()
        if machine.state is VmState.SLEEPING and machine.record.no_sleep:
            await waker.wake()
        while True:
            match await self._next():
                case Run() as wish:
                    problem = await waker.wake()
                    if problem is not None:
                        machine.roster.withdraw(wish.script.job_id, problem)
                        continue
                    problem = await runs.give(wish)
                    if problem is not None:
                        return VmState.FAILED, problem.message
                case Cancel(job_id):
                    await runs.cancel(job_id)
                case Sleep():
                    sleeper.prepare()
                case Prepared(problem):
                    await sleeper.fall_asleep(problem)
                case Wake():
                    if machine.state is VmState.SLEEPING and await waker.wake() is None:
                        runs.rest()
                case Ended(job_id):
                    machine.roster.drop(job_id)
                    machine.touch()
                    if not machine.record.jobs and machine.record.keep == "job":
                        await asyncio.sleep(COURTESY_S)
                        return VmState.GONE, ""
                    runs.rest()
                case Died(reason):
                    if machine.state is VmState.SLEEPING:
                        continue  # found out too late: it was saved
                    if not await waker.revive(reason):
                        return VmState.FAILED, reason
                case Stop(reason):
                    return VmState.GONE, reason

    async def _next(self) -> Item:
        """The next item; or what the time has come for."""
        machine = self._machine
        while True:
            if machine.gate.inside and machine.state is VmState.PARKED:
                machine.touch()
            try:
                async with asyncio.timeout(self._due_s()):
                    return await machine.inbox.get()
            except TimeoutError:
                if machine.state is VmState.SLEEPING:
                    if machine.record.no_sleep or self._waits_for_memory:
                        return Wake()
                    if machine.patience.is_over(machine.parts.settings.local_retention_s):
                        return Stop(OVERSLEPT)
                elif machine.sleepy:
                    # Files that are kept elsewhere need no VM that sleeps.
                    return Sleep() if machine.record.attachment is None else Stop()

    def _due_s(self) -> float | None:
        """Seconds until time alone makes something happen."""
        machine = self._machine
        record, settings = machine.record, machine.parts.settings
        if machine.state is VmState.PARKED and not machine.sleeper.preparing:
            return max(0.0, settings.park_timeout_s - machine.idle_s)
        if self._waits_for_memory:
            return MEMORY_S
        if machine.state is VmState.SLEEPING and record.no_sleep:
            return None if machine.sleeper.forced else WAKE_AGAIN_S
        if machine.state is VmState.SLEEPING and record.attachment is None:
            return machine.patience.next_look(settings.local_retention_s)
        return None

    @property
    def _waits_for_memory(self) -> bool:
        """Whether somebody wants in, and the host had no memory for that."""
        machine = self._machine
        return machine.state is VmState.SLEEPING and machine.waker.short and machine.gate.inside > 0
