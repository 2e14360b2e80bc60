"""Tasks with an owner."""

from __future__ import annotations

import asyncio

from mags.edge.tasks import Tasks


async def test_closing_ends_even_a_task_that_swallowed_its_first_cancellation() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass
        await asyncio.sleep(600)

    tasks = Tasks()
    tasks.start(stubborn())
    await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await tasks.aclose()
    assert len(tasks) == 0


async def test_one_that_fails_leaves_the_others() -> None:
    async def fails() -> None:
        raise RuntimeError("no")

    tasks = Tasks()
    tasks.start(fails())
    going = asyncio.Event()
    other = tasks.start(going.wait())
    await asyncio.sleep(0.01)
    assert len(tasks) == 1
    going.set()
    await tasks.settle()
    assert other.result() is True
