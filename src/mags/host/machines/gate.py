"""The way into a VM: open while its guest can be used, shut while it comes up, falls asleep or sleeps.

    shut --open--> open --shut--> shut;   shut --refuse--> shut (whoever waits is sent away)

Whoever comes while it is shut waits, and is inside from the moment he came: so a VM that opens does not fall asleep
again under those who have waited.
"""

from __future__ import annotations

import asyncio
import time

from mags.protocol.errors import Problem


class Gate:
    """`inside` counts who uses the VM, or waits to; `within` those who use it."""

    def __init__(self) -> None:
        self.inside = 0
        self.is_open = False
        self._waiting: dict[asyncio.Future[None], float] = {}
        """Since when, by time.monotonic()."""
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def within(self) -> int:
        return self.inside - sum(not turn.done() for turn in self._waiting)

    async def enter(self, timeout: float) -> None:
        """Returns when it is open; call `leave` whatever happened. Raises what `refuse` says, and TimeoutError."""
        self.inside += 1
        self._empty.clear()
        if self.is_open:
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await turn
        finally:
            del self._waiting[turn]

    def leave(self) -> None:
        self.inside -= 1
        if not self.inside:
            self._empty.set()

    async def empty(self, timeout: float) -> bool:
        """Whether nobody is inside, now or within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def open(self) -> None:
        self.is_open = True
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)

    def shut(self) -> None:
        self.is_open = False

    def refuse(self, problem: Problem, *, waited_s: float = 0.0) -> None:
        """It does not open for those who wait, and have waited so long; who comes later may have more luck."""
        self.is_open = False
        for turn, since in self._waiting.items():
            if not turn.done() and time.monotonic() - since >= waited_s:
                turn.set_exception(problem)
