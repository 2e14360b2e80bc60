"""VMs that wait: cloned, told who they are, warm from one command, and paused. Taking one costs about a millisecond.

[fill] --clone, configure, run a command, pause--> waiting --take--> a machine's
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque

from mags.host.config import Settings
from mags.host.guest import Configure, Exec
from mags.host.machines import welcome
from mags.host.machines.capacity import Capacity
from mags.host.machines.cells import Cell, Cells, new_handle, shape
from mags.host.machines.record import Record
from mags.protocol.messages import VmSpec
from mags.protocol.states import VmState

log = logging.getLogger(__name__)

WARMING = b"echo warm; echo warm >&2\n"
"""Takes the way that every script takes: the shell, both streams."""
ROUNDS = 6
"""How often: the first time brings the code into memory, the next ones let the emulator join its translations. Three
more than three cost some 20 ms of processor time, and save the script that comes 2 to 3 ms under emulation."""
WARMING_S = 60.0
RETRY_S, LAST_RETRY_S = 1.0, 30.0
"""After a failure, doubled each time."""
LOOK_S = 1.0
"""How often what can't be waited for (load, memory, VMs that die while they wait) is looked at."""


class Pool:
    """The VMs of one spec that wait."""

    def __init__(self, cells: Cells, capacity: Capacity, settings: Settings) -> None:
        self.spec = VmSpec(
            image=settings.pool_image,
            vcpus=settings.pool_vcpus,
            memory_mb=settings.pool_memory_mb,
            disk_gb=settings.pool_disk_gb,
        )
        self.target = settings.pool_target
        self._cells, self._capacity = cells, capacity
        self._max_load, self._quiet_s = settings.pool_max_load, settings.pool_quiet_s
        self._waiting: deque[Cell] = deque()
        self._hungry = asyncio.Event()
        self._asked = float("-inf")

    @property
    def waiting(self) -> int:
        return sum(cell.alive for cell in self._waiting)

    def take(self, spec: VmSpec) -> Cell | None:
        """A paused cell of this very spec, now the caller's; None when none waits."""
        self._asked = time.monotonic()
        self._hungry.set()
        if spec != self.spec:
            return None
        while self._waiting:
            cell = self._waiting.popleft()
            if cell.alive:
                return cell
            self._dead.append(cell)
        return None

    async def fill(self) -> None:
        """Keep the pool full, for ever. When cancelled, the VMs that wait are ended."""
        if not self.target:
            await self._warm_template()
        retry = RETRY_S
        self._dead: list[Cell] = []
        try:
            while True:
                self._hungry.clear()
                await self._bury()
                if self._capacity.short and await self.give_up_one():
                    await asyncio.sleep(LOOK_S)
                    continue
                if self.waiting >= self.target or not self._may_fill():
                    await self._wait()
                    continue
                quiet = self._asked + self._quiet_s - time.monotonic()
                if quiet > 0:
                    await asyncio.sleep(quiet)
                    continue
                try:
                    self._waiting.append(await self._make())
                    retry = RETRY_S
                except Exception as error:
                    log.warning("can't fill the pool: %s: %s", type(error).__name__, error)
                    await asyncio.sleep(retry)
                    retry = min(retry * 2, LAST_RETRY_S)
        finally:
            for cell in (*self._waiting, *self._dead):
                await asyncio.shield(self._cells.close(cell))
            self._waiting.clear()

    async def _warm_template(self) -> None:
        """Where no VM waits, clones at least start from the best template."""
        try:
            await self._cells.vmm.warm(shape(self.spec))
        except Exception as error:
            log.warning("can't build a template ahead: %s: %s", type(error).__name__, error)

    def _may_fill(self) -> bool:
        """Whoever waits for a VM or for memory goes first, and a busy machine is left alone."""
        if self._cells.making or self._capacity.pressing or os.getloadavg()[0] > self._max_load * (os.cpu_count() or 1):
            return False
        return self._capacity.verdict().accepting

    async def give_up_one(self) -> bool:
        """Memory is short: end a VM that waits. Whether there was one."""
        if not self._waiting:
            return False
        log.info("memory is short: a VM of the pool is given up")
        await asyncio.shield(self._cells.close(self._waiting.popleft()))
        return True

    async def _wait(self) -> None:
        """Until somebody takes one, or it is time to look again."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self._hungry.wait()
        except TimeoutError:
            pass

    async def _bury(self) -> None:
        for cell in [cell for cell in self._waiting if not cell.alive]:
            self._waiting.remove(cell)
            self._dead.append(cell)
        while self._dead:
            cell = self._dead.pop()
            log.warning("a VM of the pool has died: %s", cell.vm.died.result() if cell.vm.died.done() else "its guest")
            await self._cells.close(cell)

    async def _make(self) -> Cell:
        # The best template for just this spec, where a clone would take one that is nearly as good.
        await self._cells.vmm.warm(shape(self.spec))
        cell = await self._cells.make(Record(handle=new_handle(), spec=self.spec, uid=0))
        try:
            async with asyncio.timeout(WARMING_S):
                await _warm(cell, welcome.first(disk_bytes=cell.vm.disk_bytes))
                for _ in range(ROUNDS - 1):
                    await _warm(cell, welcome.taken())
            await cell.vm.pause()
            cell.record.state = VmState.READY
            self._cells.records.write(cell.record)
        except BaseException:
            await asyncio.shield(self._cells.close(cell))
            raise
        return cell


async def _warm(cell: Cell, configure: Configure) -> None:
    """As a script is given to a VM that was taken."""
    _, process = await cell.channel.configure_and_exec(configure, Exec(script=WARMING))
    while (piece := await process.next_output()) is not None:
        process.acknowledge(piece.stream, piece.offset + len(piece.data))
    exit = await process.wait()
    if exit.exit_code != 0:
        log.warning("the first command of a VM ended with %d: %s", exit.exit_code, exit.message)
    await process.release()
