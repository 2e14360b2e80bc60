"""Getting at the VM of a job: for exec, files, sessions, URLs, SSH. A sleeping VM wakes at its host by being used."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeVar

from mags.control.lifecycles.endings import OPEN
from mags.control.lifecycles.launch import launch
from mags.control.lifecycles.notices import wait
from mags.control.lifecycles.rehoming import leave_lost_host
from mags.control.lifecycles.release import release
from mags.control.lifecycles.world import World
from mags.control.models import Job, Vm
from mags.control.records import jobs
from mags.hostclient import HostState, Session
from mags.protocol.errors import Problem
from mags.protocol.messages import Open, Value
from mags.protocol.states import VmState

T = TypeVar("T", bound=Value)

START_PATIENCE = 60.0
"""Seconds that somebody who wants in is kept waiting for a VM that is just starting."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A job whose VM is at a host now."""

    world: World
    job: Job
    vm: Vm
    host_id: str

    async def ask(self, verb: str, value: Value, kind: type[T], *, timeout: float) -> T:
        """One request about the VM. Problem(conflict) when it turns out to be gone."""
        try:
            return await self.world.client.request(self.host_id, verb, value, kind, timeout=timeout)
        except Problem as problem:
            raise self._in_words(problem) from problem

    async def open(self, wish: Open) -> Session:
        """A session with the VM."""
        try:
            return await Session.open(self.world.client, self.host_id, wish)
        except Problem as problem:
            raise self._in_words(problem) from problem

    def _in_words(self, problem: Problem) -> Problem:
        if problem.code != "gone":
            return problem
        self.world.spawn(release(self.world, self.vm.id, state=VmState.GONE), f"release-{self.vm.id}")
        return Problem("conflict", f"The VM of {self.job.name!r} has ended; run it again.")


async def reach(world: World, owner: str, reference: str) -> Reached:
    """Problem(conflict) when the job is over and its VM gone."""
    async with world.db.read() as session:
        job, vm = await jobs.get_with_vm(session, owner, reference)
    ready = vm is not None and vm.active and vm.started
    if ready and vm is not None and vm.host_id is not None and world.hosts.state(vm.host_id) is not HostState.LOST:
        return Reached(world, job, vm, vm.host_id)
    return await _reach_slowly(world, job.owner_id, job.id)


async def _reach_slowly(world: World, owner: str, job_id: str) -> Reached:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_PATIENCE
    with world.notices.watch(job_id) as event:
        while True:
            async with world.db.read() as session:
                job, vm = await jobs.get_with_vm(session, owner, job_id)
            if vm is None or (not vm.active and job.status not in OPEN):
                raise Problem("conflict", f"{job.name!r} is {job.status}, so there is no VM; run it again.")
            lost = vm.host_id is not None and world.hosts.state(vm.host_id) is HostState.LOST
            if vm.active and vm.started and vm.host_id is not None and not lost:
                return Reached(world, job, vm, vm.host_id)
            if vm.active and vm.started and lost:
                if not vm.attached or vm.discard:
                    raise Problem("unavailable", f"Host {vm.host_id}, which has {job.name!r}, is away.", retry_after=5)
                for moved in await leave_lost_host(world, vm.id):
                    world.spawn(launch(world, moved), f"revive-{moved}")
            if loop.time() >= deadline:
                raise Problem("unavailable", f"{job.name!r} has not started yet; try again.", retry_after=5)
            await wait(event, 0.5)
