"""Ending tasks for certain, and being ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


def heed_cancellation() -> None:
    """Raises CancelledError in a task that was cancelled, and has not noticed (see `end`). For right after an await."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end(tasks: Iterable[asyncio.Future[Any]], *, every: float = 1.0) -> None:
    """Cancel tasks and wait until each is done; their results and errors are left in them.

    Asked again each `every` seconds: before Python 3.12 a cancellation that meets the answer which `asyncio.wait_for`
    waits for (nats-py waits with it) is lost.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=every)
