"""Ending tasks, and being ended."""

from __future__ import annotations

import asyncio

from mags.kit.tasks import end, heed_cancellation


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


async def test_a_cancellation_that_was_swallowed_is_heeded_after_all() -> None:
    async def swallows() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        heed_cancellation()

    task = asyncio.create_task(swallows())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_time_that_is_over_is_no_cancellation() -> None:
    try:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    except TimeoutError:
        heed_cancellation()


async def test_what_is_done_is_left_alone() -> None:
    task = asyncio.create_task(asyncio.sleep(0, "kept"))
    await task
    await end([task])
    assert task.result() == "kept"
