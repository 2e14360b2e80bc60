"""The way into a VM: open while its guest can be used, shut while it comes up, falls asleep or sleeps.

    shut --open--> open --shut--> shut;   shut --refuse--> shut (whoever waits is sent away)

Whoever comes while it is shut waits, and is inside from the moment he came: so a VM that opens does not fall asleep
again under those who have waited.
"""

from __future__ import annotations

import asyncio

from mags.protocol.errors import Problem


class Gate:
    """`inside` counts who uses the VM, or waits to; `within` those who use it."""

    def __init__(self) -> None:
        self.inside = 0
        self.is_open = False
        self._waiting: set[asyncio.Future[None]] = set()
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
        self._waiting.add(turn)
        try:
            async with asyncio.timeout(timeout):
                await turn
        finally:
            self._waiting.discard(turn)

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

    def refuse(self, problem: Problem) -> None:
        """It does not open for those who wait; who comes later may have more luck."""
        self.is_open = False
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(problem)
