"""The driver of one VM: the only one that changes its state. Wishes come through its inbox (policy: `wishes`).

    begin (a new VM, or one adopted) --> [next item] --> run | cancel | stop | ended | died | sleep | wake | too long
                                             ^------------------------'
                                                                      '--> wind up: VM gone, control told

What goes on only while the VM is up are its attendants: they follow its scripts, feel its pulse, watch whether it is
idle. They are dismissed when it falls asleep.

A machine lives from a start or an adoption until its VM is gone and control knows. When the host program ends before,
the VM stays as it is, for the next one to adopt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from mags.host.guest import ChannelClosed, GuestError, Offsets, Process, ProcessInfo
from mags.host.machines import adoption, idle, startup
from mags.host.machines.attendants import Attendants, alone
from mags.host.machines.cells import Cell
from mags.host.machines.dispatch import Dispatcher
from mags.host.machines.ending import wind_up
from mags.host.machines.events import now_ms
from mags.host.machines.gate import Gate
from mags.host.machines.inbox import Cancel, Died, Ended, Item, Prepared, Run, Sleep, Stop, Wake
from mags.host.machines.jobs import CANCELLED, STOPPED, Job
from mags.host.machines.keeper import Keeper
from mags.host.machines.lifeline import Lifeline
from mags.host.machines.parts import Parts
from mags.host.machines.problems import as_problem
from mags.host.machines.record import JobRecord, Record
from mags.host.machines.roster import Roster
from mags.host.machines.sleeper import Sleeper
from mags.host.machines.vigil import Vigil
from mags.host.machines.wishes import Denied, Wish, judge
from mags.protocol.errors import Problem
from mags.protocol.messages import Adjust, Keep, Script, Started, VmChanged, VmReport
from mags.protocol.states import VmState, may

log = logging.getLogger(__name__)

USE_S = 120.0
"""How long an exec or a session waits until the VM is up."""
WAKE_AGAIN_S = 10.0
"""Until a VM that never sleeps, and could not be woken, is tried again."""
OVERSLEPT = "It slept for longer than a VM is kept whose files are on its host only."


class _Over(Exception):
    """Ends the tasks of a machine whose life is over."""


class Machine:
    """`begin` brings the VM up (see `birth` and `adoption`): it answers the cell, or None when the VM sleeps, or raises
    what the caller gets. A stop that comes meanwhile interrupts it if it is `interruptible`: if what it has begun is
    undone then."""

    def __init__(
        self,
        parts: Parts,
        record: Record,
        begin: Callable[[Machine], Awaitable[Cell | None]],
        *,
        interruptible: bool = True,
    ) -> None:
        self.record, self.parts = record, parts
        self.dispatcher = Dispatcher(parts)
        self.dispatched = False
        """Whether a script was ever given to the guest: it must not be given again."""
        self.gone = asyncio.Event()
        self._begin, self._interruptible = begin, interruptible
        self.gate = Gate()
        self.sleeper = Sleeper(self)
        self.keeper = Keeper(self)
        self.startup_process: ProcessInfo | None = None
        """The startup command's, if it was left running."""
        self.cell: Cell | None = None
        """None: it is not up yet, or sleeps. `up` is for those who need it."""
        self._inbox: asyncio.Queue[Item] = asyncio.Queue()
        self.lifeline = self._new_lifeline()
        self.roster = Roster(parts, record, lambda: self.lifeline.why())
        self._stop_wished = asyncio.Event()
        self._active = time.monotonic()
        self._attendants = Attendants()
        self._tasks: asyncio.TaskGroup

    # --- what others ask ------------------------------------------------------------------------------------------

    @property
    def vm_id(self) -> str:
        return self.record.vm_id or ""

    @property
    def state(self) -> VmState:
        return self.record.state

    @property
    def up(self) -> Cell:
        """The VM. Raises Problem when it has no process."""
        if self.cell is None:
            raise Problem("unavailable", "The VM is not up: try again in a moment.")
        return self.cell

    @property
    def idle_timeout_s(self) -> float:
        return self.record.idle_timeout_s or self.parts.settings.idle_timeout_s

    @property
    def idle_s(self) -> float:
        """For how long there was no activity."""
        return time.monotonic() - self._active

    @property
    def sleepy(self) -> bool:
        """Whether it may fall asleep because nobody has anything of it."""
        parked = self.state is VmState.PARKED
        limit = self.parts.settings.park_timeout_s if parked else self.idle_timeout_s
        calm = not self.gate.inside and self._inbox.empty() and self.state in (VmState.RUNNING, VmState.PARKED)
        return calm and self.idle_s >= limit

    async def run(self, script: Script, *, keep: Keep | None = None) -> Started:
        """Give the VM a script; answers when it has it. The same job again gets the same answer. `keep` changes what
        becomes of the VM after it."""
        self._judge_unless_known(script.job_id)
        answer, first = self.roster.answer(script.job_id)
        if first:
            self._inbox.put_nowait(Run(script, answer, keep))
        return await asyncio.shield(answer)

    def cancel(self, job_id: str) -> None:
        """End one script. Harmless if it has ended."""
        if self._judge(Wish.CANCEL):
            self._inbox.put_nowait(Cancel(job_id))

    async def stop(self) -> None:
        """End the VM; returns when it is gone."""
        if self._judge(Wish.STOP):
            self._stop_wished.set()
            self._inbox.put_nowait(Stop())
        await self.gone.wait()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Cell]:
        """The VM, up, for an exec, a session, files or a connection; while this lasts it is active."""
        self._judge(Wish.USE)
        try:
            if not self.gate.is_open:
                self._inbox.put_nowait(Wake())
            try:
                await self.gate.enter(USE_S)
            except TimeoutError:
                raise Problem("unavailable", "The VM is not up yet: try again in a moment.") from None
            self._judge(Wish.USE)
            yield self.up
        finally:
            self.gate.leave()
            self.touch()

    async def sleep(self, *, force: bool = False) -> None:
        """Returns when it sleeps. Raises Problem when it can't: it is in use, or may not, or there is no room.
        `force`: neither use nor wish keeps it awake."""
        if self._judge(Wish.SLEEP):
            reason = idle.keeps_awake(self.record, force=force)
            if reason is not None:
                raise reason
            answer = self.sleeper.wish(force=force)
            self._inbox.put_nowait(Sleep())
            await asyncio.shield(answer)

    def doze(self) -> None:
        """It is idle."""
        if self.sleepy:
            self._inbox.put_nowait(Sleep())

    def touch(self) -> None:
        """There was activity now."""
        self._active = time.monotonic()

    def adjust(self, wish: Adjust) -> None:
        """Change what can be changed of a VM that is up."""
        self._judge(Wish.USE)
        record = self.record
        record.idle_timeout_s = record.idle_timeout_s if wish.idle_timeout_s is None else wish.idle_timeout_s
        record.no_sleep = record.no_sleep if wish.no_sleep is None else wish.no_sleep
        record.startup_command = record.startup_command if wish.startup_command is None else wish.startup_command
        self.touch()
        self.parts.records.write(record)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """A task that ends with the machine. Its failure is its own."""
        self._tasks.create_task(alone(work, name), name=name)

    def report(self) -> VmReport:
        attachment = self.record.attachment
        return VmReport(
            vm_id=self.vm_id,
            state=self.state.value,
            owner=self.record.owner,
            jobs=list(self.record.jobs),
            memory_mb=self.record.spec.memory_mb,
            epoch=attachment.epoch if attachment else None,
            workspace_id=attachment.workspace_id if attachment else None,
            keep=self.record.keep,
        )

    def tell(self, item: Item) -> None:
        """News for the driver."""
        self._inbox.put_nowait(item)

    def _judge(self, wish: Wish) -> bool:
        """Whether to queue it; False: it is so already. Raises the problem when it can't be."""
        verdict = judge(self.state, wish, reason=self.record.reason)
        if isinstance(verdict, Denied):
            raise verdict.problem
        return verdict.queued

    def _judge_unless_known(self, job_id: str) -> None:
        if not self.roster.knows(job_id):
            self._judge(Wish.RUN)

    # --- the driver -----------------------------------------------------------------------------------------------

    async def drive(self) -> None:
        """The whole life. Cancelled: leaves the VM alone."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                end = await self._come_up() or await self._serve()
                await wind_up(self, *end)
                raise _Over
        except* _Over:
            pass
        finally:
            if self.cell is not None:
                await self.cell.leave()
            ended = judge(VmState.GONE, Wish.RUN)
            if isinstance(ended, Denied):
                self.roster.refuse_all(ended.problem)
                self.sleeper.give_up(ended.problem)
                self.gate.refuse(ended.problem)
            self.gone.set()

    async def _come_up(self) -> tuple[VmState, str] | None:
        """Begin, unless a stop comes first. Answers how it ended, or None when the VM is up."""
        stopping = self.state is VmState.STOPPING
        birth = self._tasks.create_task(self._begin_safely())
        stop = self._tasks.create_task(self._stop_wished.wait())
        await asyncio.wait({birth, stop} if self._interruptible else {birth}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not birth.done():
            birth.cancel()
            await asyncio.wait({birth})
        if birth.cancelled():
            return VmState.GONE, ""
        outcome = birth.result()
        if isinstance(outcome, Problem):
            self.roster.refuse_all(outcome)
            return VmState.GONE if stopping else VmState.FAILED, outcome.message
        if outcome is not None:
            self.cell = outcome
            self.attend(self.lifeline.watch(outcome), "watch")
        return None

    async def _begin_safely(self) -> Cell | Problem | None:
        try:
            return await self._begin(self)
        except Exception as error:
            problem = as_problem(error)
            defect = problem.code == "internal"
            log.log(
                logging.ERROR if defect else logging.WARNING,
                "VM %s did not come up: %s",
                self.vm_id,
                error,
                exc_info=defect,
            )
            return problem

    async def _serve(self) -> tuple[VmState, str]:
        """Item by item, until the VM's end: how it ends."""
        if self.cell is not None and not self.dispatcher.fresh:
            self._open_for_use()
        if self.state is VmState.SLEEPING and self.record.no_sleep:
            await self.sleeper.wake()
        while True:
            match await self._next():
                case Run() as wish:
                    problem = await self.sleeper.wake()
                    if problem is not None:
                        self.roster.withdraw(wish.script.job_id, problem)
                        continue
                    problem = await self._run(wish)
                    if problem is not None:
                        return VmState.FAILED, problem.message
                case Cancel(job_id):
                    await self._cancel(job_id)
                case Sleep():
                    self.sleeper.prepare()
                case Prepared(problem):
                    await self.sleeper.fall_asleep(problem)
                case Wake():
                    if self.state is VmState.SLEEPING and await self.sleeper.wake() is None:
                        self._rest()
                case Ended(job_id):
                    self.roster.drop(job_id)
                    self.touch()
                    if not self.record.jobs and self.record.keep == "job":
                        return VmState.GONE, ""
                    self._rest()
                case Died(reason):
                    if not await self.sleeper.revive(reason):
                        return VmState.FAILED, reason
                case Stop(reason):
                    return VmState.GONE, reason

    async def _next(self) -> Item:
        """The next item; or what the time has come for."""
        while True:
            if self.gate.inside and self.state is VmState.PARKED:
                self.touch()
            try:
                async with asyncio.timeout(self._due_s()):
                    return await self._inbox.get()
            except TimeoutError:
                if self.state is VmState.SLEEPING:
                    return Wake() if self.record.no_sleep else Stop(OVERSLEPT)
                if self.sleepy:
                    # Files that are kept elsewhere need no VM that sleeps.
                    return Sleep() if self.record.attachment is None else Stop()

    def _due_s(self) -> float | None:
        """Seconds until time alone makes something happen."""
        if self.state is VmState.PARKED and not self.sleeper.preparing:
            return max(0.0, self.parts.settings.park_timeout_s - self.idle_s)
        if self.state is VmState.SLEEPING and self.record.no_sleep:
            return None if self.sleeper.forced else WAKE_AGAIN_S
        if self.state is VmState.SLEEPING and self.record.attachment is None:
            return max(0.0, self.record.slept_at_ms / 1000 + self.parts.settings.local_retention_s - time.time())
        return None

    # --- scripts --------------------------------------------------------------------------------------------------

    async def _run(self, wish: Run) -> Problem | None:
        """Give the guest a script. Answers a problem only when that leaves a VM that nobody can use."""
        assert self.cell is not None
        fresh, kind = self.dispatcher.fresh, self.dispatcher.kind(self.state)
        job = self.roster.add(JobRecord(job_id=wish.script.job_id))
        self.record.keep = wish.keep or self.record.keep
        try:
            self.to(VmState.RUNNING)
            self.parts.records.write(self.record)
            self.dispatched = True
            process = await self.dispatcher.give(self.cell, wish.script, self.record.environment)
        except (Problem, GuestError, ChannelClosed, TimeoutError, OSError) as error:
            problem = as_problem(error)
            if isinstance(error, ChannelClosed):
                problem = Problem("guest_failed", await self.lifeline.explain(error))
            self.dispatched = not fresh
            self.roster.withdraw(wish.script.job_id, problem)
            if fresh or isinstance(error, ChannelClosed):
                return problem
            self._rest()
            return None
        job.record.process_id = process.id if process is not None else None
        boot_ms = self.dispatcher.boot_ms if fresh else 0
        job.record.started = Started(start_kind=kind, boot_ms=boot_ms, started_at_ms=now_ms())
        if not wish.answer.done():
            wish.answer.set_result(job.record.started)
        self._open_for_use()
        self.write()
        self.follow(job, process, Offsets())
        return None

    async def _cancel(self, job_id: str) -> None:
        """A script of a VM that sleeps is ended when it is awake, which it is for that."""
        if self.state is VmState.SLEEPING and job_id in self.record.jobs:
            self.record.jobs[job_id].cancelled = True
            await self.sleeper.wake()
            return
        job = self.roster.jobs.get(job_id)
        if job is not None:
            job.record.cancelled = True
            self.attend(job.end(CANCELLED, self.parts.settings.cancel_grace_s), "cancel")

    def follow(self, job: Job, process: Process | None, start: Offsets) -> None:
        """See a job to its end."""

        async def work() -> None:
            await self.roster.follow(job, process, start)
            self._inbox.put_nowait(Ended(job.record.job_id))

        self._attendants.add(self._tasks, work(), f"job-{job.record.job_id}")

    def finish(self) -> None:
        """Nothing is left to do for the VM: end it."""
        self._inbox.put_nowait(Stop())

    def _rest(self) -> None:
        """Without a script a VM that is not to stay is parked."""
        if not self.record.jobs and self.record.keep == "park" and self.state is VmState.RUNNING:
            self.to(VmState.PARKED)
            self.touch()
            self.announce(VmState.PARKED)
        self.write()

    # --- states ---------------------------------------------------------------------------------------------------

    def _open_for_use(self) -> None:
        """The guest is configured: execs and sessions may begin."""
        if self.gate.is_open:
            return
        cell = self.up
        self.touch()
        self.attend(self.lifeline.pulse(cell), "pulse")
        if self.keeper.has:
            self.attend(self.keeper.attend(cell), "workspace")
        if self.record.keep != "job":
            self.attend(Vigil(self, cell).run(), "vigil")
        if self.record.startup is not None:
            self.attend(startup.run(self, cell, self.startup_process), "startup")
            self.startup_process = None
        self.gate.open()

    async def rise(self, cell: Cell) -> None:
        """The VM is up again, and told: go on with its scripts and let everybody in."""
        self.cell = cell
        try:
            await adoption.take_up(self, cell)
        except (Problem, ChannelClosed, ValueError) as error:
            self.tell(Died(f"The VM has failed: {error}"))
            return
        self.attend(self.lifeline.watch(cell), "watch")
        self._open_for_use()
        self.write()

    def asleep(self, reason: str = "") -> None:
        """The VM has no process any more. What it was saved as is made safe in the background."""
        self.cell = None
        self.roster.jobs.clear()
        self.record.slept_at_ms = now_ms()
        self.to(VmState.SLEEPING)
        self.write()
        self.announce(VmState.SLEEPING, reason)
        cells = self.parts.cells
        self.spawn(cells.vmm.flush(cells.directory(self.record)), "flush")

    async def bury(self) -> None:
        """The VM has died, and is to be started again: its scripts are told of, and nothing of it is left but files."""
        cell = self.up
        await self.roster.all_told()
        for job_id in list(self.roster.jobs):
            self.roster.drop(job_id)
        await self.dismiss()
        self.lifeline.cut(STOPPED)
        self.lifeline = self._new_lifeline()
        await cell.channel.aclose()
        await cell.vm.kill()
        self.cell = None

    def attend(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """A task that ends when the VM falls asleep. Its failure is its own."""
        self._attendants.add(self._tasks, alone(work, name), name)

    async def dismiss(self) -> None:
        """End the attendants."""
        await self._attendants.dismiss()

    def _new_lifeline(self) -> Lifeline:
        return Lifeline(self.parts.settings, lambda reason: self._inbox.put_nowait(Died(reason)))

    def to(self, state: VmState) -> None:
        if not may(self.state, state):
            raise RuntimeError(f"a VM can't go from {self.state} to {state}")
        self.record.state = state

    def write(self) -> None:
        """A full disk must not end what runs: an old record only costs more to recover from."""
        try:
            self.parts.records.write(self.record)
        except OSError as error:
            log.warning("the record of VM %s can't be written: %s", self.vm_id, error)

    def announce(self, state: VmState, reason: str = "") -> None:
        """Tell control, without waiting for it."""
        self.spawn(self.publish(state, reason or self.record.reason, now_ms()), "tell")

    async def publish(self, state: VmState, reason: str, at_ms: int) -> None:
        """Tell control; returns when the news is safe."""
        await self.parts.events.publish(VmChanged(vm_id=self.vm_id, state=state.value, reason=reason, at_ms=at_ms))
