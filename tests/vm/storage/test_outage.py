"""The object store is away for a while: jobs go on, syncs catch up, and the host says so."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from mags.protocol.errors import Problem
from tests.vm.storage.station import forget, station

pytestmark = pytest.mark.vm


async def outage(place: Path, cache: Path, seconds: float) -> None:
    """Regular syncs go on all the time, as they do by default."""
    settings = {"storage_sync_interval_s": 2, "storage_io_retries": 1, "storage_put_timeout_s": 2}
    async with station(place, cache, s3=True, **settings) as at:
        assert at.store is not None
        vm_id = await at.start("head -c 5000000 /dev/urandom > /root/before; cd /root && md5sum before > sums")
        await at.synced(vm_id)
        await at.store.stop()
        await at.storage_says("does not answer")
        end, count = time.monotonic() + seconds, 0
        while count < 3 or time.monotonic() < end:
            count += 1
            ended = await at.caller.run(
                vm_id, f"head -c 300000 /dev/urandom > /root/{count}; cd /root && md5sum {count} >> sums; wc -l < sums"
            )
            assert ended.stdout == b"%d\n" % (count + 1), ended
        known = at.generation
        with pytest.raises(Problem, match="volume"):
            await at.sync(vm_id)
        # A VM without a workspace is none the worse.
        other = await at.caller.whole("echo other")
        assert other.stdout == b"other\n"
        await at.store.start()
        await at.storage_says("ok")
        async with asyncio.timeout(120):
            while at.generation == known:
                await asyncio.sleep(0.1)
        await at.stop(vm_id)
        again = await at.start()
        assert await at.run(again, "cd /root && md5sum -c sums | grep -c OK") == f"{count + 1}\n"


async def test_jobs_go_on_and_syncs_catch_up(place: Path, image_cache: Path) -> None:
    await outage(place, image_cache, 0)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_two_minutes(place: Path, image_cache: Path) -> None:
    await outage(place, image_cache, 120)


async def restart_under_a_stalled_vm(place: Path, cache: Path, seconds: float) -> None:
    """A VM reads what only the store has; the host program is killed meanwhile."""
    async with station(place, cache, s3=True, storage_io_retries=1) as at:
        assert at.store is not None
        first = await at.start("head -c 20000000 /dev/urandom > /root/big; md5sum < /root/big > /root/sum")
        await at.stop(first)
        vm_id = await at.start()
        forget(at, at.image(at.generation))
        await at.store.stop()
        script = "echo 3 > /proc/sys/vm/drop_caches; md5sum < /root/big"
        job_id = at.give(vm_id, script)
        await at.says("stands still")
        with pytest.raises(Problem, match="stands still"):
            await at.sync(vm_id)
        at.host.kill()
        at.host.start()
        await at.caller.ready()
        await asyncio.sleep(seconds)
        await at.store.start()
        ended = await at.caller.ended(job_id)
        assert ended.exit_code == 0 and ended.stdout.decode() == await at.run(vm_id, "cat /root/sum")
        assert await at.run(vm_id, "dmesg | grep -ciE 'i/o error|ext4-fs error' || true") == "0\n"


async def test_next_host_program_takes_over_a_vm_that_stands_still(place: Path, image_cache: Path) -> None:
    await restart_under_a_stalled_vm(place, image_cache, 0)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_it_may_stand_still_for_longer_than_a_guest_has_to_answer(place: Path, image_cache: Path) -> None:
    await restart_under_a_stalled_vm(place, image_cache, 75)
