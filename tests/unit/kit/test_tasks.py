"""Ending tasks."""

from __future__ import annotations

import asyncio

from mags.kit.tasks import end


async def test_a_task_that_swallows_its_cancellation_is_asked_again() -> None:
    asked = 0

    async def stubborn() -> None:
        nonlocal asked
        while asked < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asked += 1
        raise RuntimeError("left in the task")

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end([task], every=0.01)
    assert asked == 3 and isinstance(task.exception(), RuntimeError)


async def test_what_is_done_is_left_alone() -> None:
    task = asyncio.create_task(asyncio.sleep(0, "kept"))
    await task
    await end([task])
    assert task.result() == "kept"
