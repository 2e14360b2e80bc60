"""What must be done in the end is tried again and again: more seldom, and at once when the storage works again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from mags.host.guest import ChannelClosed, GuestError
from mags.host.machines.problems import as_problem
from mags.host.vmm.driver import VmmError
from mags.protocol.errors import Problem

log = logging.getLogger(__name__)

FIRST_S, GROWTH, LONGEST_S = 3.0, 1.3, 60.0
"""Between two tries: the first pause, by how much the next is longer, and the longest."""
LOOK_S = 1.0


async def until_done(what: str, step: Callable[[], Awaitable[None]], works: Callable[[], bool]) -> None:
    """Problem only when another host has the workspace, or this one keeps none any more.

    what: "VM 1 can't sync", for the log, which gets each reason once. works: whether the storage does.
    """
    said, pause = "", FIRST_S
    while True:
        try:
            return await step()
        except (Problem, VmmError, GuestError, ChannelClosed, TimeoutError, OSError) as error:
            problem = as_problem(error)
            if isinstance(error, Problem) and problem.code in ("conflict", "not_available"):
                raise  # what a guest refuses may be called so too
            if problem.message != said:
                said = problem.message
                log.warning("%s yet: %s", what, said)
        await _wait(pause, works)
        pause = min(pause * GROWTH, LONGEST_S)


async def _wait(pause: float, works: Callable[[], bool]) -> None:
    end, worked = time.monotonic() + pause, works()
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, LOOK_S))
        if works() and not worked:
            return
        worked = works()
