"""A VM with a workspace whose host program is killed while it is half asleep or half awake."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable
from pathlib import Path
from random import Random

import pytest

from tests.vm.sleep.test_machine import COUNTER, sleep, wake
from tests.vm.storage.station import Station, station

pytestmark = pytest.mark.vm

UP = f"({COUNTER}) >/dev/null 2>&1 & until test -s /m/n; do sleep 0.1; done"


async def seconds(work: Awaitable[None]) -> float:
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def killed_somewhere(at: Station, tries: int, seed: int) -> None:
    """kill -9 of the host program at random moments of falling asleep (with its sync) and waking, and now and then a
    mere request to end: the VM goes on with its memory and all files, and the next sync has them."""
    vm_id = await at.start()
    await at.run(vm_id, UP)
    random, nights = Random(seed), ""
    last = generation = 0
    takes = [await seconds(each(at.caller, vm_id)) for each in (sleep, wake)]
    for number in range(tries):
        nights += f"{number}\n"
        await at.run(vm_id, f"echo {number} >> /root/nights; head -c 300000 /dev/urandom > /root/noise")
        waking = number % 2
        if waking:
            await sleep(at.caller, vm_id)
        doing = asyncio.create_task((wake if waking else sleep)(at.caller, vm_id))
        await asyncio.sleep(random.uniform(0, takes[waking]))
        if random.random() < 0.25:
            assert await asyncio.to_thread(at.host.kill, signal.SIGTERM) == 0
        else:
            at.host.kill()
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        at.host.start()
        await at.caller.ready()
        now = int(await at.run(vm_id, "cat /m/n"))
        assert now >= last
        last = now
        assert await at.run(vm_id, "cat /root/nights") == nights
        synced = await at.synced(vm_id)
        assert synced.generation > generation
        generation = synced.generation
    assert await at.run(vm_id, "dmesg | grep -ciE 'ext4-fs (error|warning)'; true") == "0\n"
    await at.stop(vm_id)
    again = await at.start()
    assert await at.run(again, "cat /root/nights") == nights


async def test_a_host_program_killed_while_a_vm_with_a_workspace_is_half_asleep_or_half_awake(
    place: Path, image_cache: Path
) -> None:
    async with station(place, image_cache, s3=False) as at:
        await killed_somewhere(at, 3, seed=8)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_host_program_killed_very_often_while_a_vm_with_a_workspace_sleeps_and_wakes(
    place: Path, image_cache: Path
) -> None:
    async with station(place, image_cache, s3=False) as at:
        await killed_somewhere(at, 100, seed=9)
