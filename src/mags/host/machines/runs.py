"""The scripts of one VM from the driver's side: given to the guest, ended when that is wished, followed to their end;
and what becomes of a VM that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mags.host.guest import ChannelClosed, GuestError, Offsets, Process
from mags.host.machines.cells import Cell
from mags.host.machines.events import now_ms
from mags.host.machines.inbox import Ended, Run
from mags.host.machines.jobs import CANCELLED, Job
from mags.host.machines.problems import as_problem
from mags.host.machines.record import JobRecord
from mags.protocol.errors import Problem
from mags.protocol.messages import Started
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine


class Runs:
    """Of one machine, for its driver and its steps."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def give(self, wish: Run) -> Problem | None:
        """Give the guest a script. Answers a problem only when that leaves a VM that nobody can use."""
        machine = self._machine
        dispatcher, record, uptime = machine.dispatcher, machine.record, machine.uptime
        assert uptime.cell is not None
        fresh, kind = dispatcher.fresh, dispatcher.kind(record.state)
        job = machine.roster.add(JobRecord(job_id=wish.script.job_id))
        record.keep = wish.keep or record.keep
        try:
            machine.standing.to(VmState.RUNNING)
            machine.parts.records.write(record)
            dispatcher.dispatched = True
            process = await dispatcher.give(uptime.cell, wish.script, record.environment)
        except (Problem, GuestError, ChannelClosed, TimeoutError, OSError) as error:
            problem = as_problem(error)
            if isinstance(error, ChannelClosed):
                problem = Problem("guest_failed", await uptime.lifeline.explain(error))
            dispatcher.dispatched = not fresh
            machine.roster.withdraw(wish.script.job_id, problem)
            if fresh:
                return problem
            self.rest()
            return None
        job.record.process_id = process.id if process is not None else None
        boot_ms = dispatcher.boot_ms if fresh else 0
        started = job.record.started = Started(start_kind=kind, boot_ms=boot_ms, started_at_ms=now_ms())
        uptime.open()
        machine.roster.given(wish.script.job_id, started)
        if process is None or fresh:
            machine.roster.had(wish.script.job_id)
        else:
            machine.attendants.attend(self._see_read(wish.script.job_id, uptime.cell), f"given-{wish.script.job_id}")
        machine.standing.write()
        self.follow(job, process, Offsets())
        return None

    async def _see_read(self, job_id: str, cell: Cell) -> None:
        """The guest has read the script: before, it would be lost if we were killed, and a VM whose disk is away may
        not read for long. (A fresh guest has just answered to what came with it.) Who asked for it asks again."""
        while True:
            try:
                await cell.channel.ping()
            except TimeoutError:
                continue  # it stands still
            except ChannelClosed:
                return  # it has died, and the script's end is told
            self._machine.roster.had(job_id)
            return

    def follow(self, job: Job, process: Process | None, start: Offsets) -> None:
        """See a job to its end; the driver hears `inbox.Ended`."""
        machine = self._machine

        async def work() -> None:
            await machine.roster.follow(job, process, start)
            machine.tell(Ended(job.record.job_id))

        machine.attendants.depend(work(), f"job-{job.record.job_id}")

    async def cancel(self, job_id: str) -> None:
        """A script of a VM that sleeps is ended when it is awake, which it is for that."""
        machine = self._machine
        if machine.state is VmState.SLEEPING and job_id in machine.record.jobs:
            machine.record.jobs[job_id].cancelled = True
            machine.standing.write()
            await machine.waker.wake()
            return
        job = machine.roster.jobs.get(job_id)
        if job is not None:
            job.record.cancelled = True
            machine.attendants.attend(job.end(CANCELLED, machine.parts.settings.cancel_grace_s), "cancel")

    def rest(self) -> None:
        """Without a script a VM that is not to stay is parked."""
        machine = self._machine
        if not machine.record.jobs and machine.record.keep == "park" and machine.state is VmState.RUNNING:
            machine.standing.to(VmState.PARKED)
            machine.touch()
            machine.standing.announce(VmState.PARKED)
            machine.keeper.parked()
        machine.standing.write()
