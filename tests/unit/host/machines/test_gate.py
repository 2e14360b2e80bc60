"""The way into a VM."""

from __future__ import annotations

import asyncio

import pytest

from mags.host.machines.gate import Gate
from mags.protocol.errors import Problem


async def test_who_comes_while_it_is_shut_waits_and_counts_as_inside() -> None:
    gate = Gate()
    waiting = [asyncio.create_task(gate.enter(60)) for _ in range(3)]
    await asyncio.sleep(0)
    assert gate.inside == 3 and not any(task.done() for task in waiting)
    gate.open()
    await asyncio.gather(*waiting)
    assert not await gate.empty(0.01)
    for _ in waiting:
        gate.leave()
    assert gate.inside == 0 and await gate.empty(0.01)


async def test_who_waits_can_be_sent_away_and_who_comes_later_waits_anew() -> None:
    gate = Gate()
    early = asyncio.create_task(gate.enter(60))
    await asyncio.sleep(0)
    gate.refuse(Problem("unavailable", "Not now."))
    with pytest.raises(Problem, match="Not now"):
        await early
    gate.leave()
    late = asyncio.create_task(gate.enter(60))
    await asyncio.sleep(0)
    gate.open()
    await late
    gate.leave()


async def test_who_gives_up_waiting_is_forgotten() -> None:
    gate = Gate()
    with pytest.raises(TimeoutError):
        await gate.enter(0.01)
    gate.leave()
    impatient = asyncio.create_task(gate.enter(60))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    gate.leave()
    gate.open()
    assert gate.inside == 0 and await gate.empty(0.01)


async def test_shutting_it_keeps_nobody_from_leaving() -> None:
    gate = Gate()
    gate.open()
    await gate.enter(1)
    gate.shut()
    leaving = asyncio.create_task(gate.empty(60))
    await asyncio.sleep(0)
    gate.leave()
    assert await leaving


async def test_only_who_has_waited_for_long_is_sent_away_where_there_is_hope() -> None:
    gate = Gate()
    early = asyncio.create_task(gate.enter(60))
    await asyncio.sleep(0.05)
    late = asyncio.create_task(gate.enter(60))
    await asyncio.sleep(0)
    gate.refuse(Problem("no_capacity", "Not now."), waited_s=0.05)
    with pytest.raises(Problem):
        await early
    gate.open()
    await late
