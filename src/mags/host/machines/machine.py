"""The driver of one VM: the only one that changes its state. Wishes come through its inbox (policy: `wishes`).

    begin (a new VM, or one adopted) --> [next item] --> run | cancel | stop | ended | died | parked too long
                                             ^------------------------'
                                                                      '--> wind up: VM gone, control told

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

from mags.host.errors import as_problem
from mags.host.guest import ChannelClosed, GuestError, Offsets, Process
from mags.host.machines.cells import Cell
from mags.host.machines.dispatch import Dispatcher
from mags.host.machines.events import now_ms
from mags.host.machines.inbox import Cancel, Died, Ended, Item, Run, Stop
from mags.host.machines.jobs import CANCELLED, STOPPED, Job
from mags.host.machines.lifeline import Lifeline
from mags.host.machines.parts import Parts
from mags.host.machines.record import JobRecord, Record
from mags.host.machines.roster import Roster
from mags.host.machines.wishes import Denied, Wish, judge
from mags.protocol.errors import Problem
from mags.protocol.messages import Adjust, Keep, Script, Started, VmChanged, VmReport
from mags.protocol.states import VmState, may

log = logging.getLogger(__name__)

USE_S = 120.0
"""How long an exec or a session waits until the VM is up."""


class _Over(Exception):
    """Ends the tasks of a machine whose life is over."""


class Machine:
    """`begin` brings the VM up (see `birth` and `adoption`): it answers the cell, or raises what the caller gets. A
    stop that comes meanwhile interrupts it if it is `interruptible`: if what it has begun is undone then."""

    def __init__(
        self,
        parts: Parts,
        record: Record,
        begin: Callable[[Machine], Awaitable[Cell]],
        *,
        interruptible: bool = True,
    ) -> None:
        self.record, self.parts = record, parts
        self.dispatcher = Dispatcher(parts)
        self.dispatched = False
        """Whether a script was ever given to the guest: it must not be given again."""
        self.gone = asyncio.Event()
        self._begin, self._interruptible = begin, interruptible
        self._cell: Cell | None = None
        self._inbox: asyncio.Queue[Item] = asyncio.Queue()
        self._lifeline = Lifeline(parts.settings, lambda reason: self._inbox.put_nowait(Died(reason)))
        self.roster = Roster(parts, record, self._lifeline.why)
        self._usable = asyncio.Event()
        self._stop_wished = asyncio.Event()
        self._uses = 0
        self._active = time.monotonic()
        self._tasks: asyncio.TaskGroup

    # --- what others ask ------------------------------------------------------------------------------------------

    @property
    def vm_id(self) -> str:
        return self.record.vm_id or ""

    @property
    def state(self) -> VmState:
        return self.record.state

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
        self._uses += 1
        try:
            try:
                async with asyncio.timeout(USE_S):
                    await self._usable.wait()
            except TimeoutError:
                raise Problem("unavailable", "The VM is not up yet: try again in a moment.") from None
            self._judge(Wish.USE)
            assert self._cell is not None
            yield self._cell
        finally:
            self._uses -= 1
            self.touch()

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
        self.parts.records.write(record)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """A task that ends with the machine. Its failure is its own."""
        self._tasks.create_task(_alone(work, name), name=name)

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
                await self._wind_up(*end)
                raise _Over
        except* _Over:
            pass
        finally:
            if self._cell is not None:
                await self._cell.leave()
            ended = judge(VmState.GONE, Wish.RUN)
            if isinstance(ended, Denied):
                self.roster.refuse_all(ended.problem)
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
        self._cell = outcome
        self.spawn(self._lifeline.watch(outcome), "watch")
        return None

    async def _begin_safely(self) -> Cell | Problem:
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
        if not self.dispatcher.fresh:
            self._open_for_use()
        while True:
            match await self._next():
                case Run() as wish:
                    problem = await self._run(wish)
                    if problem is not None:
                        return VmState.FAILED, problem.message
                case Cancel(job_id):
                    job = self.roster.jobs.get(job_id)
                    if job is not None:
                        job.record.cancelled = True
                        self.spawn(job.end(CANCELLED, self.parts.settings.cancel_grace_s), "cancel")
                case Ended(job_id):
                    self.roster.drop(job_id)
                    self.touch()
                    if not self.record.jobs and self.record.keep == "job":
                        return VmState.GONE, ""
                    self._rest()
                case Died(reason):
                    return VmState.FAILED, reason
                case Stop():
                    return VmState.GONE, ""

    async def _next(self) -> Item:
        """The next item; a stop when the VM was parked for too long."""
        timeout = self.parts.settings.park_timeout_s
        while True:
            if self._uses or self.state is not VmState.PARKED:
                self.touch()
            limit = self._active + timeout - time.monotonic() if self.state is VmState.PARKED else None
            try:
                async with asyncio.timeout(limit):
                    return await self._inbox.get()
            except TimeoutError:
                if not self._uses and self._active + timeout <= time.monotonic():
                    return Stop()

    # --- scripts --------------------------------------------------------------------------------------------------

    async def _run(self, wish: Run) -> Problem | None:
        """Give the guest a script. Answers a problem only when that leaves a VM that nobody can use."""
        assert self._cell is not None
        fresh, kind = self.dispatcher.fresh, self.dispatcher.kind(self.state)
        job = self.roster.add(JobRecord(job_id=wish.script.job_id))
        self.record.keep = wish.keep or self.record.keep
        try:
            self._to(VmState.RUNNING)
            self.parts.records.write(self.record)
            self.dispatched = True
            process = await self.dispatcher.give(self._cell, wish.script, self.record.environment)
        except (Problem, GuestError, ChannelClosed, TimeoutError, OSError) as error:
            problem = as_problem(error)
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
        self._write()
        self.follow(job, process, Offsets())
        return None

    def follow(self, job: Job, process: Process | None, start: Offsets) -> None:
        """See a job to its end."""

        async def work() -> None:
            await self.roster.follow(job, process, start)
            self._inbox.put_nowait(Ended(job.record.job_id))

        self._tasks.create_task(work(), name=f"job-{job.record.job_id}")

    def finish(self) -> None:
        """Nothing is left to do for the VM: end it."""
        self._inbox.put_nowait(Stop())

    def _rest(self) -> None:
        """Without a script a VM that is not to stay is parked."""
        if not self.record.jobs and self.record.keep == "park" and self.state is VmState.RUNNING:
            self._to(VmState.PARKED)
            self.spawn(self._tell(VmState.PARKED), "tell")
        self._write()

    # --- states ---------------------------------------------------------------------------------------------------

    def _open_for_use(self) -> None:
        """The guest is configured: execs and sessions may begin."""
        if not self._usable.is_set():
            assert self._cell is not None
            self._usable.set()
            self.spawn(self._lifeline.pulse(self._cell), "pulse")

    def _to(self, state: VmState) -> None:
        if not may(self.state, state):
            raise RuntimeError(f"a VM can't go from {self.state} to {state}")
        self.record.state = state

    def _write(self) -> None:
        """A full disk must not end what runs: an old record only costs more to recover from."""
        try:
            self.parts.records.write(self.record)
        except OSError as error:
            log.warning("the record of VM %s can't be written: %s", self.vm_id, error)

    async def _tell(self, state: VmState) -> None:
        await self.parts.events.publish(
            VmChanged(vm_id=self.vm_id, state=state.value, reason=self.record.reason, at_ms=now_ms())
        )

    async def _wind_up(self, final: VmState, reason: str) -> None:
        """End the scripts, the VM, and tell; the record goes last, so that a crash in between is made good."""
        self.record.reason = reason
        self._to(VmState.FAILED if final is VmState.FAILED else VmState.STOPPING)
        self._usable.set()
        if self._cell is not None:
            self._write()
            if final is VmState.GONE:
                await self.roster.end_all(self.parts.settings.stop_grace_s)
            self._lifeline.cut(reason or STOPPED)
            await self._cell.vm.kill()
            await self._cell.channel.aclose()
            await self.roster.all_told()
        if self.dispatched:
            await self._tell(final)
        if self._cell is not None:
            await self.parts.cells.close(self._cell)
        self._to(final)


async def _alone(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except Exception as error:
        log.error("%s failed: %s: %s", name, type(error).__name__, error, exc_info=as_problem(error).code == "internal")
