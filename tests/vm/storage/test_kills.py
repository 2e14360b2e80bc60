"""kill -9 of each program in turn, in the middle of a sync, at random moments, with a guest that writes all the time:
every restore is a whole file system with every file of the last sync, here and on a host that has nothing of it yet."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mags.protocol.errors import Problem
from tests.vm.storage.elsewhere import Elsewhere, elsewhere
from tests.vm.storage.station import Station, station

pytestmark = pytest.mark.vm

FILES = 9
"""New ones in each round."""
WRITE = """
mkdir -p /root/d/{0}; for i in 1 2 3 4 5 6 7 8 9; do head -c $((i * 5000)) /dev/urandom > /root/d/{0}/$i; done
(cd /root/d && md5sum {0}/* >> sums)
"""
NOISE = "head -c {0}000000 /dev/urandom > /root/noise-{1}"
GO_ON_WRITING = """
mkdir -p /root/w; cat > /tmp/writer <<'END'
i=0; while :; do
  i=$((i+1)); text=$(head -c 3000 /dev/urandom | md5sum | cut -c1-32)$i
  { echo $text | md5sum; echo $text; } > /root/w/next; mv /root/w/next /root/w/$((i % 40)); echo $i > /tmp/count
  sleep 0.05
done
END
setsid sh /tmp/writer >/dev/null 2>&1 </dev/null &
while [ "$(cat /tmp/count 2>/dev/null || echo 0)" -lt 40 ]; do sleep 0.1; done
"""
CHECK = """
cd /root/d && md5sum -c sums 2>&1 | grep -vc OK; wc -l < sums
torn=0; for f in /root/w/[0-9]*; do [ "$(tail -n +2 $f | md5sum)" = "$(head -n 1 $f)" ] || torn=$((torn+1)); done
echo $torn; dmesg | grep -ciE 'ext4-fs (error|warning)'; true
"""


async def rounds(at: Station, other: Elsewhere, count: int, seed: int) -> None:
    """Each round: new files, a sync that must hold, more files, and a kill somewhere in a second sync."""
    chance = random.Random(seed)
    victims = ["worker", "qemu", "host", "volume", *(["store"] if at.store is not None else [])]
    hits = writing = 0
    for number in range(1, count + 1):
        vm_id = await restored(at, number - 1)
        await at.run(vm_id, GO_ON_WRITING)
        await at.run(vm_id, WRITE.format(number) + NOISE.format(3, number % 3))
        begun = time.monotonic()
        synced = await at.synced(vm_id)
        takes = time.monotonic() - begun
        await at.run(vm_id, NOISE.format(6, (number + 1) % 3))  # so it takes longer
        victim = victims[number % len(victims)]
        with other.held(at.workspace, synced.generation) as last:
            syncing = asyncio.create_task(at.sync(vm_id))
            await asyncio.sleep(chance.random() * takes)
            hit, draft = not syncing.done(), any(at.image(0).parent.glob("draft-*"))
            await kill(at, vm_id, victim)
            hits, writing = hits + hit, writing + (hit and draft)
            print(f"round {number}: {victim}, sync of {takes:.2f} s, under way: {hit}, being written: {draft}")
            syncing.cancel()
            with suppress(Problem, asyncio.CancelledError):
                await syncing
            await store_serves(at)
            # It was taken from a guest that stood still: nothing is to be mended.
            assert await other.files(last, died=False) >= number * FILES
        await at.stop(vm_id)
        with other.held(at.workspace, at.generation) as newest:
            assert await other.files(newest, died=True) >= number * FILES
    await restored(at, count)
    print(f"{hits} of {count} in the middle of a sync, {writing} of them while its draft was there")
    assert hits > count // 4, f"only {hits} of {count} kills came in the middle of a sync"


async def restored(at: Station, rounds: int) -> str:
    """The next VM: what was synced in so many rounds is whole."""
    vm_id = await at.start()
    if rounds:
        bad, lines, torn, errors = (await at.run(vm_id, CHECK)).split()
        assert (bad, torn, errors) == ("0", "0", "0") and int(lines) >= rounds * FILES, (bad, lines, torn, errors)
    return vm_id


async def kill(at: Station, vm_id: str, victim: str) -> None:
    match victim:
        case "qemu":
            os.kill(at.host.hypervisor(vm_id), signal.SIGKILL)
        case "host":
            at.host.kill()
            at.host.start()
            await at.caller.ready()
        case "store":
            assert at.store is not None
            if at.store.pid is not None:
                os.kill(at.store.pid, signal.SIGKILL)  # its supervisor starts it again
        case _:
            at.kill_volume(whole=victim == "volume")


async def store_serves(at: Station) -> None:
    async with asyncio.timeout(60):
        while at.store is not None and not await at.store._ready():
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("s3", [pytest.param(True, id="s3")])
async def test_a_few_kills(place: Path, image_cache: Path, s3: bool) -> None:
    async with station(place, image_cache, s3=s3) as at, elsewhere(at, place) as other:
        await rounds(at, other, 4, seed=7)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("s3", [pytest.param(True, id="s3"), pytest.param(False, id="local")])
async def test_fifty_kills(place: Path, image_cache: Path, s3: bool, seed: int) -> None:
    """Twenty-five for each of two seeds."""
    async with station(place, image_cache, s3=s3) as at, elsewhere(at, place) as other:
        await rounds(at, other, 25, seed=seed)
