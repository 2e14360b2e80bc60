"""The scripts of one VM: those that run, and how each start was answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from mags.host.guest import Offsets, Process
from mags.host.machines.jobs import STOPPED, Job
from mags.host.machines.output import OutputWriter
from mags.host.machines.parts import Parts
from mags.host.machines.record import JobRecord, Record
from mags.protocol.errors import Problem
from mags.protocol.messages import Started

log = logging.getLogger(__name__)

FAILED = "The host could not follow the script; its log says why."
REMEMBERED = 1000
"""Jobs of one VM whose start is answered again as it was."""
TELLING_S = 1.0
"""After the scripts have ended: how long the VM waits until all of their output is stored."""


class Roster:
    def __init__(self, parts: Parts, record: Record, death: Callable[[], Awaitable[str]]) -> None:
        self.jobs: dict[str, Job] = {}
        self._parts, self._record, self._death = parts, record, death
        self._answers: dict[str, asyncio.Future[Started]] = {}
        self._given: dict[str, Started] = {}
        """Answers of jobs that the guest was sent and has perhaps not read."""
        self._followed: set[str] = set()
        """Jobs that somebody sees to their end."""

    def knows(self, job_id: str) -> bool:
        """Whether the job was asked for before."""
        return job_id in self._answers

    def answer(self, job_id: str) -> tuple[asyncio.Future[Started], bool]:
        """How a job's start is, or will be, answered; and whether it is asked for the first time."""
        known = self._answers.get(job_id)
        if known is not None:
            return known, False
        answer: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(seen)
        self._answers[job_id] = answer
        return answer, True

    def first_answer(self) -> Started | None:
        """How the VM's own start was answered, as far as is known."""
        done = (a.result() for a in self._answers.values() if a.done() and not a.cancelled() and a.exception() is None)
        return next(done, None)

    def refuse_all(self, problem: Problem) -> None:
        """Whoever still waits. A script that may have run, and whose end was told, is not to run elsewhere."""
        for job_id in [job_id for job_id in self._given if job_id not in self.jobs or self.jobs[job_id].ended.is_set()]:
            self.had(job_id)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(problem)

    def given(self, job_id: str, started: Started) -> None:
        """The guest was sent the job's script, which is answered so as soon as it `had` it, or its end was told."""
        self._given[job_id] = started

    def had(self, job_id: str) -> None:
        """The guest has read the job's script: it is answered. Harmless if it was before."""
        started, answer = self._given.pop(job_id, None), self._answers.get(job_id)
        if started is not None and answer is not None and not answer.done():
            answer.set_result(started)

    def add(self, record: JobRecord) -> Job:
        """A job that is on its way to the guest, or was left by an earlier host program."""
        if record.started is not None:
            answer, _ = self.answer(record.job_id)
            if not answer.done():
                answer.set_result(record.started)
        writer = OutputWriter(self._parts.journal, record.job_id)
        job = Job(self._record.vm_id or "", record, writer, self._parts.events, self._death)
        self.jobs[record.job_id] = job
        self._record.jobs[record.job_id] = record
        return job

    def drop(self, job_id: str) -> None:
        """It has ended and was told, or was never given."""
        self.had(job_id)
        self.jobs.pop(job_id, None)
        self._record.jobs.pop(job_id, None)
        if len(self._answers) > REMEMBERED:
            oldest = next((known for known in self._answers if known not in self.jobs), None)
            if oldest is not None:
                del self._answers[oldest]

    def withdraw(self, job_id: str, problem: Problem) -> None:
        """The guest could not be given it: the same job may be asked for again."""
        self.drop(job_id)
        answer = self._answers.pop(job_id, None)
        if answer is not None and not answer.done():
            answer.set_exception(problem)

    async def follow(self, job: Job, process: Process | None, start: Offsets) -> None:
        """See a job to its end, which is told; at once when nothing runs."""
        self._followed.add(job.record.job_id)
        try:
            if process is None:
                await job.tell(0, None)
            else:
                await job.follow(process, start)
        except Exception:
            log.exception("job %s can't be followed", job.record.job_id)
            await job.tell(None, FAILED)
        finally:
            self._followed.discard(job.record.job_id)

    async def end_all(self, grace_s: float) -> None:
        """Give the scripts that run the chance to end by themselves, and their output the time to be stored."""
        jobs = list(self.jobs.values())
        await asyncio.gather(*(job.end(STOPPED, grace_s) for job in jobs))
        try:
            async with asyncio.timeout(TELLING_S):
                await self.all_told()
        except TimeoutError:
            pass

    async def endings_told(self, timeout: float) -> None:
        """The scripts that have ended are told of, or the time is over."""
        ending = [job for job in self.jobs.values() if job.process is not None and job.process.exit is not None]
        try:
            async with asyncio.timeout(timeout):
                for job in ending:
                    await job.ended.wait()
        except TimeoutError:
            pass

    async def all_told(self) -> None:
        """Control and the readers know of every end, of a VM that is gone."""
        for job in list(self.jobs.values()):
            if job.record.job_id not in self._followed and not job.ended.is_set():
                await job.tell(None, job.ended_by or await self._death())
            await job.ended.wait()


def seen(answer: asyncio.Future[Any]) -> None:
    """An answer that nobody waits for any more is no error of asyncio's to report."""
    if not answer.cancelled():
        answer.exception()
