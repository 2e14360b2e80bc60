"""Watches a persistent VM that is awake, and says when it has been idle for long enough."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from mags.host.guest import ChannelClosed, GuestError
from mags.host.machines import idle
from mags.host.machines.cells import Cell
from mags.host.machines.idle import Look
from mags.host.network import NetworkError

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine

STATS_S = 30.0
"""A guest that does not say for so long how busy it is counts as busy."""


class Vigil:
    """`run` calls `Machine.doze` whenever the VM is idle; it ends with the task that runs it."""

    def __init__(self, machine: Machine, cell: Cell) -> None:
        self._machine, self._cell = machine, cell
        self._output, self._cpu_ms, self._traffic = 0, 0, 0
        self._at = time.monotonic()

    async def run(self) -> None:
        machine = self._machine
        await self._look()
        while True:
            await asyncio.sleep(idle.interval(machine.idle_timeout_s))
            if idle.keeps_awake(machine.record) is not None:
                machine.touch()
                continue
            if idle.active(await self._look(), stays=machine.record.keep == "stay"):
                machine.touch()
            elif machine.idle_s >= machine.idle_timeout_s:
                machine.doze()

    async def _look(self) -> Look:
        machine = self._machine
        now = time.monotonic()
        jobs = list(machine.roster.jobs.values())
        output = sum(sum(job.writer.position) for job in jobs)
        running = [job for job in jobs if job.process is not None and job.process.exit is None]
        cpu_ms = await self._cpu() if running else self._cpu_ms
        try:
            traffic = sum(await self._cell.namespace.count_traffic())
        except NetworkError:
            traffic = self._traffic
        look = Look(
            seconds=now - self._at,
            inside=machine.gate.inside,
            scripts=len(running),
            ending=len(jobs) - len(running),
            output=max(0, output - self._output),
            cpu_ms=max(0, cpu_ms - self._cpu_ms) if self._cpu_ms else 0,
            traffic=max(0, traffic - self._traffic),
        )
        self._at, self._output, self._cpu_ms, self._traffic = now, output, cpu_ms, traffic
        return look

    async def _cpu(self) -> int:
        try:
            async with asyncio.timeout(STATS_S):
                return (await self._cell.channel.stats()).cpu_ms
        except (ChannelClosed, GuestError):
            return self._cpu_ms
        except TimeoutError:
            return self._cpu_ms + round(STATS_S * 1000)
