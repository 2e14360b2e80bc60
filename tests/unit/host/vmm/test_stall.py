from __future__ import annotations

import asyncio

from mags.host.vmm.stall import Stall


async def test_begins_and_ends_are_waited_for_and_counted() -> None:
    stall = Stall()
    await stall.ends()  # it runs
    waiting = asyncio.create_task(stall.begins())
    await asyncio.sleep(0)
    stall.begin("the disk is full")
    assert await waiting == "the disk is full"
    stall.begin("the store is away")
    assert (stall.count, stall.reason, await stall.begins()) == (1, "the store is away", "the store is away")
    waiting = asyncio.create_task(stall.begins())
    stall.end()
    await stall.ends()
    assert stall.reason == ""
    waiting.cancel()
    stall.begin("again")
    assert stall.count == 2
