"""The driver of one VM: the only one that changes its state. Wishes come through its queue (policy: `wishes`).

    begin (a new VM, or one adopted) --> [next wish] --> run | cancel | stop | ended | died | parked too long
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
from dataclasses import dataclass
from typing import Any

from mags.host.errors import as_problem
from mags.host.guest import ChannelClosed, GuestError, Offsets, Process
from mags.host.machines.cells import Cell
from mags.host.machines.dispatch import Dispatcher
from mags.host.machines.events import now_ms
from mags.host.machines.jobs import CANCELLED, STOPPED, Job
from mags.host.machines.output import OutputWriter
from mags.host.machines.parts import Parts
from mags.host.machines.record import JobRecord, Record
from mags.host.machines.wishes import Denied, Wish, judge
from mags.protocol.errors import Problem
from mags.protocol.messages import Adjust, Keep, Script, Started, VmChanged, VmReport
from mags.protocol.states import FINAL_VM_STATES, VmState, may

log = logging.getLogger(__name__)

DEATH_S = 2.0
"""After the channel has ended: how long to wait for the hypervisor's end, which says why."""
USE_S = 120.0
"""How long an exec or a session waits until the VM is up."""


@dataclass(frozen=True, slots=True)
class _Run:
    script: Script
    answer: asyncio.Future[Started]
    keep: Keep | None = None


@dataclass(frozen=True, slots=True)
class _Cancel:
    job_id: str


@dataclass(frozen=True, slots=True)
class _Ended:
    job_id: str


@dataclass(frozen=True, slots=True)
class _Died:
    reason: str


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


_Wish = _Run | _Cancel | _Ended | _Died | _Stop


class _Over(Exception):
    """Ends the tasks of a machine whose life is over."""


class Machine:
    """`begin` brings the VM up (see `birth` and `adoption`): it answers the cell, or raises what the caller gets."""

    def __init__(self, parts: Parts, record: Record, begin: Callable[[Machine], Awaitable[Cell]]) -> None:
        self.record = record
        self.parts = parts
        self.jobs: dict[str, Job] = {}
        self.dispatcher = Dispatcher(parts)
        self.dispatched = False
        """Whether a script was ever given to the guest: it must not be given again."""
        self.gone = asyncio.Event()
        self._begin = begin
        self._cell: Cell | None = None
        self._queue: asyncio.Queue[_Wish] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[Started]] = {}
        self._usable = asyncio.Event()
        self._stop_wished = asyncio.Event()
        self._death: asyncio.Future[str] = asyncio.get_running_loop().create_future()
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

    @property
    def answers(self) -> dict[str, asyncio.Future[Started]]:
        """How each script's start was answered, by job."""
        return self._answers

    async def run(self, script: Script, *, keep: Keep | None = None) -> Started:
        """Give the VM a script; answers when it has it. The same job again gets the same answer. `keep` changes what
        becomes of the VM after it."""
        answer = self._answers.get(script.job_id)
        if answer is None:
            self._judge(Wish.RUN)
            answer = asyncio.get_running_loop().create_future()
            answer.add_done_callback(_seen)
            self._answers[script.job_id] = answer
            self._queue.put_nowait(_Run(script, answer, keep))
        return await asyncio.shield(answer)

    def cancel(self, job_id: str) -> None:
        """End one script. Harmless if it has ended."""
        if self._judge(Wish.CANCEL):
            self._queue.put_nowait(_Cancel(job_id))

    async def stop(self) -> None:
        """End the VM; returns when it is gone."""
        if self._judge(Wish.STOP):
            self._stop_wished.set()
            self._queue.put_nowait(_Stop())
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
        """Change what can be changed of a VM that is up. OSError when the record can't be written."""
        self._judge(Wish.USE)
        record = self.record
        record.idle_timeout_s = record.idle_timeout_s if wish.idle_timeout_s is None else wish.idle_timeout_s
        record.no_sleep = record.no_sleep if wish.no_sleep is None else wish.no_sleep
        record.startup_command = record.startup_command if wish.startup_command is None else wish.startup_command
        self._write()

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
        )

    def _judge(self, wish: Wish) -> bool:
        """Whether to queue it; False: it is so already. Raises the problem when it can't be."""
        verdict = judge(self.state, wish, reason=self.record.reason)
        if isinstance(verdict, Denied):
            raise verdict.problem
        return verdict.queued

    # --- the driver -----------------------------------------------------------------------------------------------

    async def drive(self) -> None:
        """The whole life. Cancelled: leaves the VM alone."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await self._live()
                raise _Over
        except* _Over:
            pass
        finally:
            if self._cell is not None:
                await self._cell.channel.aclose()
            self._refuse_the_rest()
            self.gone.set()

    async def _live(self) -> None:
        end = await self._come_up() or await self._serve()
        await self._wind_up(*end)

    async def _come_up(self) -> tuple[VmState, str] | None:
        """Begin, unless a stop comes first. Answers how it ended, or None when the VM is up."""
        stopping = self.state is VmState.STOPPING
        birth = self._tasks.create_task(self._begin_safely())
        stop = self._tasks.create_task(self._stop_wished.wait())
        await asyncio.wait({birth, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not birth.done():
            birth.cancel()
            await asyncio.wait({birth})
        if birth.cancelled():
            return VmState.GONE, ""
        outcome = birth.result()
        if isinstance(outcome, Problem):
            self._answer_all(outcome)
            return VmState.GONE if stopping else VmState.FAILED, outcome.message
        self._cell = outcome
        self.spawn(self._watch(outcome), "watch")
        return None

    async def _begin_safely(self) -> Cell | Problem:
        try:
            return await self._begin(self)
        except Exception as error:
            problem = as_problem(error)
            log.log(
                logging.ERROR if problem.code == "internal" else logging.WARNING,
                "VM %s did not come up: %s", self.vm_id, error, exc_info=problem.code == "internal",
            )  # fmt: skip
            return problem

    async def _serve(self) -> tuple[VmState, str]:
        """Wish by wish, until the VM's end: how it ends."""
        if not self.dispatcher.fresh:
            self.open_for_use()
        while True:
            match await self._next():
                case _Run() as wish:
                    problem = await self._run(wish)
                    if problem is not None:
                        return VmState.FAILED, problem.message
                case _Cancel(job_id):
                    job = self.jobs.get(job_id)
                    if job is not None:
                        job.record.cancelled = True
                        self.spawn(job.end(CANCELLED, self.parts.settings.cancel_grace_s), "cancel")
                case _Ended(job_id):
                    if self._forget(job_id):
                        return VmState.GONE, ""
                case _Died(reason):
                    return VmState.FAILED, reason
                case _Stop():
                    return VmState.GONE, ""

    async def _next(self) -> _Wish:
        while True:
            limit = None
            if self.state is VmState.PARKED:
                limit = self._active + self.parts.settings.park_timeout_s - time.monotonic()
                if limit <= 0 and self._uses:
                    self.touch()
                    continue
            try:
                async with asyncio.timeout(limit):
                    return await self._queue.get()
            except TimeoutError:
                if not self._uses and self._active + self.parts.settings.park_timeout_s <= time.monotonic():
                    return _Stop()

    # --- scripts --------------------------------------------------------------------------------------------------

    async def _run(self, wish: _Run) -> Problem | None:
        """Give the guest a script. Answers a problem only when that leaves a VM that nobody can use."""
        assert self._cell is not None
        script, answer = wish.script, wish.answer
        fresh = self.dispatcher.fresh
        kind = self.dispatcher.kind(self.state)
        job = self._job(JobRecord(job_id=script.job_id))
        self.record.keep = wish.keep or self.record.keep
        try:
            self.record.jobs[script.job_id] = job.record
            self._to(VmState.RUNNING)
            self.dispatched = True
            process = await self.dispatcher.give(self._cell, script, self.record.environment)
        except (Problem, GuestError, ChannelClosed, TimeoutError, OSError) as error:
            problem = as_problem(error)
            del self.jobs[script.job_id], self.record.jobs[script.job_id]
            self.dispatched = not fresh
            _resolve(answer, problem)
            if fresh or isinstance(error, ChannelClosed):
                return problem
            self._rest()
            return None
        self.open_for_use()
        job.record.process_id = process.id if process is not None else None
        job.record.started = Started(
            start_kind=kind, boot_ms=self.dispatcher.boot_ms if fresh else 0, started_at_ms=now_ms()
        )
        if not answer.done():
            answer.set_result(job.record.started)
        self._write()
        self.follow(job, process, Offsets())
        return None

    def _job(self, record: JobRecord) -> Job:
        job = Job(
            self.vm_id, record, OutputWriter(self.parts.journal, record.job_id), self.parts.events, self._why_it_died
        )
        self.jobs[record.job_id] = job
        return job

    def resume(self, record: JobRecord) -> Job:
        """A job that an earlier host program has begun; `follow` it."""
        if record.started is not None:
            answer: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
            answer.set_result(record.started)
            self._answers[record.job_id] = answer
        self.dispatched = True
        return self._job(record)

    def follow(self, job: Job, process: Process | None, start: Offsets) -> None:
        """See the job to its end (at once, when nothing runs)."""

        async def work() -> None:
            if process is None:
                await job.tell(0, None)
            else:
                await job.follow(process, start)
            self._queue.put_nowait(_Ended(job.record.job_id))

        self._tasks.create_task(work(), name=f"job-{job.record.job_id}")

    def finish(self) -> None:
        """Nothing is left to do for the VM: end it."""
        self._queue.put_nowait(_Stop())

    def _forget(self, job_id: str) -> bool:
        """A job's end was told. Whether the VM ends with it."""
        self.jobs.pop(job_id, None)
        self.record.jobs.pop(job_id, None)
        self.touch()
        if not self.record.jobs and self.record.keep == "job":
            return True
        self._rest()
        return False

    def _rest(self) -> None:
        """Without a script a VM that is not to stay is parked."""
        if not self.record.jobs and self.record.keep == "park" and self.state is VmState.RUNNING:
            self._to(VmState.PARKED)
            self.spawn(self._tell_state(), "tell")
        else:
            self._write()

    # --- states ---------------------------------------------------------------------------------------------------

    def open_for_use(self) -> None:
        """The guest is configured: execs and sessions may begin."""
        if not self._usable.is_set():
            self._usable.set()
            self.spawn(self._pulse(), "pulse")

    def _to(self, state: VmState) -> None:
        if not may(self.state, state):
            raise RuntimeError(f"a VM can't go from {self.state} to {state}")
        self.record.state = state
        self._write()

    def _write(self) -> None:
        self.parts.records.write(self.record)

    async def _tell_state(self) -> None:
        await self.parts.events.publish(
            VmChanged(vm_id=self.vm_id, state=self.state.value, reason=self.record.reason, at_ms=now_ms())
        )

    async def _wind_up(self, final: VmState, reason: str) -> None:
        """End the scripts, the VM, and tell; the record goes last."""
        self.record.reason = reason
        self.record.state = VmState.FAILED if final is VmState.FAILED else VmState.STOPPING
        self._usable.set()
        if self._cell is None:
            await self._told(final)
            return
        try:
            self._write()
        except OSError as error:
            log.warning("the record of VM %s can't be written: %s", self.vm_id, error)
        await self._end_jobs(final)
        if not self._death.done():
            self._death.set_result(reason or STOPPED)
        await self._cell.vm.kill()
        await self._cell.channel.aclose()
        for job in list(self.jobs.values()):
            await job.ended.wait()
        await self._told(final)
        await self.parts.cells.close(self._cell)
        self.record.state = final

    async def _told(self, final: VmState) -> None:
        self.record.state, state = final, self.record.state
        if self.dispatched:
            await self._tell_state()
        if self._cell is not None:
            self.record.state = state

    async def _end_jobs(self, final: VmState) -> None:
        """Give the scripts that run the chance to end by themselves."""
        if final is VmState.FAILED or not self.jobs:
            return
        grace = self.parts.settings.stop_grace_s
        async with asyncio.TaskGroup() as ends:
            for job in self.jobs.values():
                ends.create_task(job.end(STOPPED, grace))
        try:
            async with asyncio.timeout(1.0):
                for job in list(self.jobs.values()):
                    await job.ended.wait()
        except TimeoutError:
            pass

    def _answer_all(self, problem: Problem) -> None:
        for answer in self._answers.values():
            _resolve(answer, problem)

    def _refuse_the_rest(self) -> None:
        verdict = judge(self.state if self.state in FINAL_VM_STATES else VmState.STOPPING, Wish.RUN)
        if isinstance(verdict, Denied):
            self._answer_all(verdict.problem)

    # --- watching the VM --------------------------------------------------------------------------------------------

    async def _watch(self, cell: Cell) -> None:
        died, closed = cell.vm.died, cell.channel.closed
        await asyncio.wait({died, closed}, return_when=asyncio.FIRST_COMPLETED)
        if not died.done():
            await asyncio.wait({died}, timeout=DEATH_S)
        reason = died.result() if died.done() else closed.result()
        self._die(f"The VM ended unexpectedly: {reason}")

    async def _pulse(self) -> None:
        """A guest that does not answer for long has failed."""
        settings = self.parts.settings
        assert self._cell is not None
        while True:
            await asyncio.sleep(settings.pulse_s)
            try:
                async with asyncio.timeout(settings.pulse_deadline_s):
                    await self._cell.channel.ping()
            except ChannelClosed:
                return
            except (TimeoutError, GuestError) as error:
                words = (
                    f"did not answer for {settings.pulse_deadline_s:g} s"
                    if isinstance(error, TimeoutError)
                    else str(error)
                )
                self._die(f"The VM has failed: its agent {words}")
                return

    def _die(self, reason: str) -> None:
        reason = reason.rstrip(".") + "."
        if not self._death.done():
            self._death.set_result(reason)
        self._queue.put_nowait(_Died(reason))

    async def _why_it_died(self) -> str:
        return await asyncio.shield(self._death)


async def _alone(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except Exception as error:
        log.error("%s failed: %s: %s", name, type(error).__name__, error, exc_info=as_problem(error).code == "internal")


def _resolve(answer: asyncio.Future[Started], problem: Problem) -> None:
    if not answer.done():
        answer.set_exception(problem)


def _seen(answer: asyncio.Future[Started]) -> None:
    """An answer that nobody waits for any more is no error of asyncio's to report."""
    if not answer.cancelled():
        answer.exception()
