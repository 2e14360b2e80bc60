r"""A script that runs in a VM, followed to its end: its output stored, its end told to control.

started --output--> ... --exit--> told --> released
                          \--(VM died)--> told, with the reason
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from signal import SIGKILL, SIGTERM

from mags.host.guest import ChannelClosed, Exit, Offsets, Process
from mags.host.machines import scripts
from mags.host.machines.events import Events, now_ms
from mags.host.machines.output import OutputWriter
from mags.host.machines.record import JobRecord
from mags.protocol.messages import JobEnded

STOPPED = "The job was stopped."
CANCELLED = "The script was cancelled."


class Job:
    """`death` answers, once the VM is gone, with the sentence that says why."""

    def __init__(
        self,
        vm_id: str,
        record: JobRecord,
        writer: OutputWriter,
        events: Events,
        death: Callable[[], Awaitable[str]],
    ) -> None:
        self.record = record
        self.writer = writer
        self.ended = asyncio.Event()
        """Set when control was told."""
        self.process: Process | None = None
        self.ended_by: str | None = None
        """Why we end it, if we do."""
        self._vm_id, self._events, self._death = vm_id, events, death

    async def follow(self, process: Process, start: Offsets) -> None:
        """To the end, and tell."""
        self.process = process
        try:
            exit = await scripts.follow(process, self.writer, start)
        except ChannelClosed:
            await self.tell(None, self.ended_by or await self._death())
            return
        code, error = self._verdict(exit)
        if exit.timed_out:
            await self.writer.say(f"The script was killed: its time-out of {exit.duration_ms / 1000:.0f} s has passed.")
        elif code is not None and error is not None:
            await self.writer.say(error)
        await self.tell(code, error, exit.cpu_ms)
        await process.release()

    async def tell(self, code: int | None, error: str | None, cpu_ms: int = 0) -> None:
        """The end, to readers of the output and to control; returns when both are stored."""
        event = JobEnded(
            vm_id=self._vm_id,
            job_id=self.record.job_id,
            exit_code=code,
            error=error,
            started=self.record.started,
            ended_at_ms=now_ms(),
            cpu_ms=cpu_ms,
        )
        async with asyncio.TaskGroup() as both:
            both.create_task(self._events.publish(event))  # first, as control has more to do with it
            both.create_task(self.writer.end(code, error))
        self.ended.set()

    async def end(self, why: str, grace_s: float) -> None:
        """SIGTERM to the script's processes, SIGKILL after the grace. Does not wait for the end to be told."""
        self.ended_by = why
        process = self.process
        if process is None:
            return
        try:
            await process.signal(SIGTERM)
            async with asyncio.timeout(grace_s):
                await process.wait()
        except TimeoutError:
            await process.signal(SIGKILL)
        except ChannelClosed:
            pass

    def _verdict(self, exit: Exit) -> tuple[int | None, str | None]:
        if self.ended_by is not None:
            return None, self.ended_by
        if exit.error is not None:
            return exit.exit_code, f"The script could not be started: {exit.message or 'the guest refused'}."
        if exit.message:
            return exit.exit_code, f"The script was killed: {exit.message}. `--memory` (`memory_mb`) gives it more."
        return exit.exit_code, None
