"""Makes room when memory is short. For somebody who lacks it (`Capacity.ask_for_room`, repeated while he waits)
the pool gives its VMs up, then who was idle for longest falls asleep, one VM at a time; so that there is room for a new
VM, the idle alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mags.host.machines import idle
from mags.host.machines.capacity import Capacity
from mags.host.machines.pool import Pool
from mags.protocol.errors import Problem
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often it is looked whether there is room for a new VM."""
RESTED_S = 30.0
"""Without activity for so long: it may sleep early. More than it takes to notice activity (idle.LONGEST_S)."""


class Relief:
    def __init__(self, capacity: Capacity, pool: Pool, machines: Callable[[], Iterable[Machine]]) -> None:
        self._capacity, self._pool, self._machines = capacity, pool, machines

    async def run(self) -> None:
        """For ever."""
        capacity = self._capacity
        while True:
            asked = await self._asked()
            lacking = asked and not capacity.relieved
            if lacking and await self._pool.give_up_one():
                continue
            candidates = [machine for machine in self._machines() if _rests(machine)]
            if candidates and (lacking or capacity.tight):
                await self._put_to_sleep(max(candidates, key=lambda machine: machine.idle_s))

    async def _asked(self) -> bool:
        """Whether somebody has asked, at once; or not for a while."""
        wanted = self._capacity.wanted
        try:
            async with asyncio.timeout(LOOK_S):
                await wanted.wait()
        except TimeoutError:
            return False
        wanted.clear()
        return True

    async def _put_to_sleep(self, machine: Machine) -> None:
        log.info("memory is short: VM %s, idle for %d s, is put to sleep", machine.vm_id, machine.idle_s)
        try:
            await machine.sleep()
        except Problem as problem:
            log.info("VM %s stays awake: %s", machine.vm_id, problem.message)
            machine.touch()


def _rests(machine: Machine) -> bool:
    awake = machine.state in (VmState.RUNNING, VmState.PARKED) and idle.keeps_awake(machine.record) is None
    return awake and not machine.gate.inside and machine.idle_s >= RESTED_S
