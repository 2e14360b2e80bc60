"""The tasks of one machine: those that last as long as it does, and those that go on only while its VM is up: they
follow its scripts, feel its pulse, watch whether it is idle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from mags.host.machines.problems import as_problem
from mags.kit import tasks

log = logging.getLogger(__name__)

Work = Coroutine[Any, Any, None]


class Attendants:
    """Children of one task group, which must be `within` before the first is begun."""

    def __init__(self) -> None:
        self._up: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup

    def within(self, group: asyncio.TaskGroup) -> None:
        self._group = group

    def spawn(self, work: Work, name: str) -> None:
        """Ends with the machine. Its failure is its own."""
        self._group.create_task(_alone(work, name), name=name)

    def attend(self, work: Work, name: str) -> None:
        """Ends when the VM falls asleep. Its failure is its own."""
        self.depend(_alone(work, name), name)

    def depend(self, work: Work, name: str) -> None:
        """As `attend`, but its failure is the machine's."""
        task = self._group.create_task(work, name=name)
        self._up.add(task)
        task.add_done_callback(self._up.discard)

    async def dismiss(self) -> None:
        """End those that go on only while the VM is up; returns when they have ended."""
        await tasks.end(self._up)


async def _alone(work: Work, name: str) -> None:
    """Work whose failure is its own, and said in the log."""
    try:
        await work
    except Exception as error:
        log.error("%s failed: %s: %s", name, type(error).__name__, error, exc_info=as_problem(error).code == "internal")
