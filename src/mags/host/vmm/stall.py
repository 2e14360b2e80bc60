"""Whether a VM stands still for want of its disk. Written by its driver, read by who owns the VM."""

from __future__ import annotations

import asyncio
import time


class Stall:
    """A VM whose disk does not work is stopped, so that its guest sees a delay and never an error.

    reason: why it stands still now; empty while it runs. count: how often it has begun to.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.count = 0
        self._since = 0.0
        self._begun, self._over = asyncio.Event(), asyncio.Event()
        self._over.set()

    def begin(self, reason: str) -> None:
        """It stands still from now on, or does so for another reason."""
        if not self.reason:
            self.count += 1
            self._since = time.monotonic()
        self.reason = reason
        self._over.clear()
        self._begun.set()

    def end(self) -> None:
        """It runs again. Harmless if it does."""
        self.reason = ""
        self._begun.clear()
        self._over.set()

    @property
    def lasted_s(self) -> float:
        """For how long it has stood still; 0 while it runs."""
        return time.monotonic() - self._since if self.reason else 0.0

    async def begins(self) -> str:
        """Wait until it stands still; why."""
        await self._begun.wait()
        return self.reason

    async def ends(self) -> None:
        """Wait until it runs."""
        await self._over.wait()
