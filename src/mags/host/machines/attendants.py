"""The tasks that go on only while a VM is up: they follow its scripts, feel its pulse, watch whether it is idle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from mags.host.machines.problems import as_problem

log = logging.getLogger(__name__)


class Attendants:
    """Children of a task group, ended together by `dismiss`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> None:
        task = tasks.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def dismiss(self) -> None:
        """End them all; returns when they have."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def alone(work: Coroutine[Any, Any, None], name: str) -> None:
    """Work whose failure is its own, and said in the log."""
    try:
        await work
    except Exception as error:
        log.error("%s failed: %s: %s", name, type(error).__name__, error, exc_info=as_problem(error).code == "internal")
