"""All machines of a host."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence

from mags.host.machines.adoption import readopt
from mags.host.machines.birth import bear, record_of
from mags.host.machines.capacity import Capacity
from mags.host.machines.driver import Driver
from mags.host.machines.journal import Away
from mags.host.machines.machine import Machine
from mags.host.machines.parts import Parts
from mags.host.machines.record import Record
from mags.protocol import subjects
from mags.protocol.errors import Problem
from mags.protocol.messages import Start, Started, VmList
from mags.protocol.states import VmState

log = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Ended VMs whose answer to a repeated start is known."""
YOUNG_S = 900.0
"""For this long after our start, a start that we don't know may be one that an earlier host program has carried out."""


class Fleet:
    def __init__(self, parts: Parts, capacity: Capacity) -> None:
        self._parts, self._capacity = parts, capacity
        self._machines: dict[str, Machine] = {}
        self._ended: OrderedDict[str, Started | None] = OrderedDict()
        self._born = time.monotonic()
        self._tasks: asyncio.TaskGroup

    def __len__(self) -> int:
        return len(self._machines)

    @property
    def machines(self) -> Sequence[Machine]:
        return list(self._machines.values())

    async def run(self, left: list[Record], ready: asyncio.Event) -> None:
        """Take up what was left and drive all machines, until cancelled; VMs stay up then."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for record in left:
                assert record.vm_id is not None
                machine = Machine(self._parts, record)
                self._launch(machine, Driver(machine, readopt, interruptible=False))
            ready.set()
            await asyncio.Event().wait()

    async def start(self, start: Start) -> Started:
        """A VM and its first script. Repeatable: the same `vm_id` is started once."""
        machine = self._machines.get(start.vm_id)
        if machine is None:
            answered = await self._earlier_answer(start)
            if answered is not None:
                return answered
            verdict = self._capacity.verdict()
            if not verdict.accepting:
                raise Problem("no_capacity", verdict.reason, retry_after=5)
            # Another start of the same VM may have come in between.
            machine = self._machines.get(start.vm_id)
            if machine is None:
                machine = Machine(self._parts, record_of(start))
                self._launch(machine, Driver(machine, bear))
        return await machine.run(start.script)

    def get(self, vm_id: str) -> Machine:
        """Raises not_found, or gone."""
        machine = self._machines.get(vm_id)
        if machine is not None:
            return machine
        if vm_id in self._ended:
            raise Problem("gone", "The VM has ended: start another.")
        raise Problem("not_found", "There is no such VM on this host.")

    async def stop(self, vm_id: str) -> None:
        """Returns when it is gone; also when it was."""
        machine = self._machines.get(vm_id)
        if machine is not None:
            await machine.stop()
        else:
            self._remember(vm_id, self._ended.get(vm_id))

    def list(self) -> VmList:
        return VmList(vms=[machine.standing.report() for machine in self._machines.values()])

    def count(self) -> Counter[VmState]:
        return Counter(machine.state for machine in self._machines.values())

    def _launch(self, machine: Machine, driver: Driver) -> None:
        self._machines[machine.vm_id] = machine
        self._tasks.create_task(self._drive(machine, driver), name=f"machine-{machine.vm_id}")

    async def _drive(self, machine: Machine, driver: Driver) -> None:
        try:
            await driver.drive()
        except Exception:
            log.exception("the driver of VM %s failed; its VM is left to the next start of this program", machine.vm_id)
        finally:
            self._machines.pop(machine.vm_id, None)
            if machine.dispatcher.dispatched:
                self._remember(machine.vm_id, machine.roster.first_answer())

    def _remember(self, vm_id: str, answer: Started | None) -> None:
        self._ended[vm_id] = answer
        self._ended.move_to_end(vm_id)
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    async def _earlier_answer(self, start: Start) -> Started | None:
        """How this start was answered before, if it was. A VM that has been is not started again, as its script
        would run twice: Problem(gone)."""
        if start.vm_id in self._ended:
            answer = self._ended[start.vm_id]
            if answer is None:
                raise Problem("gone", "The VM has ended: start another.")
            return answer
        if start.revive or time.monotonic() - self._born > YOUNG_S:
            return None
        try:
            last = await self._parts.journal.last(subjects.OUTPUT_STREAM, subjects.output(start.script.job_id))
        except Away as error:
            raise Problem("unavailable", "Messages can't be stored now: try again in a moment.") from error
        if last is not None:
            raise Problem("gone", "The script has run already: start another job.")
        return None
