"""The startup command: run in the background of a VM that came up without its memory, again while it fails.

    run --ended with 0--> done
     ^---(pause)---------ended otherwise

Its output is appended to the log of the VM's first job. A restart of the host program, and sleep, it survives.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from mags.host.guest import ChannelClosed, Exec, Offsets, Process, ProcessInfo
from mags.host.machines import scripts
from mags.host.machines.cells import Cell
from mags.host.machines.output import OutputWriter
from mags.protocol.guest import STDERR, STDOUT

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine

FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 60.0
"""Doubled with every failure; from the first again after a command that lasted."""
LASTED_S = 60.0


class Appendix:
    """Writes behind what a log has already: offsets of its own (scripts.Sink)."""

    def __init__(self, writer: OutputWriter, base: tuple[int, int]) -> None:
        self._writer, self._base = writer, {STDOUT: base[0], STDERR: base[1]}

    @property
    def position(self) -> tuple[int, int]:
        stdout, stderr = self._writer.position
        return stdout - self._base[STDOUT], stderr - self._base[STDERR]

    async def write(self, stream: int, offset: int, data: bytes) -> None:
        await self._writer.write(stream, self._base[stream] + offset, data)


def pause(last: float | None, lasted_s: float) -> float:
    """Seconds until a command that has failed is run again. last: the pause before; lasted_s: how long it ran."""
    return FIRST_PAUSE_S if last is None or lasted_s > LASTED_S else min(last * 2, LAST_PAUSE_S)


async def run(machine: Machine, cell: Cell, left: ProcessInfo | None) -> None:
    """Until it has ended well, or the VM sleeps or ends. `left`: its process, if an earlier call has begun it."""
    again: float | None = None
    writer = OutputWriter(machine.parts.journal, machine.record.home, after_end=True)
    await writer.recover()
    try:
        while machine.record.startup is not None and machine.record.startup_command:
            began = time.monotonic()
            process, start = _attach(machine, cell, left) if left is not None else await _begin(machine, cell, writer)
            left = None
            exit = await scripts.follow(process, Appendix(writer, machine.record.startup.base), start)
            machine.record.startup.process_id = None
            if exit.exit_code == 0:
                machine.record.startup = None
            machine.standing.write()
            await process.release()
            if machine.record.startup is None:
                return
            again = pause(again, time.monotonic() - began)
            await writer.say(f"The startup command ended with {exit.exit_code}; it is started again in {again:g} s.")
            await asyncio.sleep(again)
    except ChannelClosed:
        return


async def _begin(machine: Machine, cell: Cell, writer: OutputWriter) -> tuple[Process, Offsets]:
    record = machine.record
    assert record.startup is not None and record.startup_command is not None
    record.startup.base = writer.position
    command = record.startup_command.encode("utf-8", "surrogateescape")
    process = await cell.channel.exec(Exec(script=command, window=scripts.WINDOW))
    record.startup.process_id = process.id
    machine.standing.write()
    return process, Offsets()


def _attach(machine: Machine, cell: Cell, left: ProcessInfo) -> tuple[Process, Offsets]:
    return cell.channel.attach(left.id, left.acknowledged), left.acknowledged
