"""Tasks that outlive the call that starts them, with an owner that ends them and hears of their failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from mags.protocol.errors import Problem

log = logging.getLogger("mags.edge.tasks")

T = TypeVar("T")


class Tasks:
    """A set of running tasks. Unlike a TaskGroup, one that fails leaves the others alone (they serve other clients)."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def __len__(self) -> int:
        return len(self._running)

    def cancel(self) -> None:
        """Ask all to end; `aclose` waits for it too."""
        for task in list(self._running):
            task.cancel()

    async def settle(self) -> None:
        """Wait until all have ended by themselves."""
        while self._running:
            await asyncio.wait(self._running)

    async def aclose(self) -> None:
        """End all. Asked more than once: `asyncio.wait_for` before Python 3.12 (nats-py waits with it) can swallow a
        cancellation that meets the answer."""
        while self._running:
            self.cancel()
            await asyncio.wait(self._running, timeout=1.0)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled() or (error := task.exception()) is None or isinstance(error, Problem):
            return  # a problem is news for whoever waits for the task
        log.error("a task failed: %r", error, exc_info=error)
