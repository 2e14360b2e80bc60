"""The metadata engine of a fleet dies under a VM with a workspace, and comes back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mags.protocol.errors import Problem
from tests.kit.host_world import PATIENCE
from tests.kit.postgres import cluster
from tests.kit.redis import redis
from tests.vm.storage.station import forget, station

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

SUM = "cd /root && md5sum -c sums | grep -c OK"


@pytest.fixture(params=["redis", pytest.param("postgres", marks=pytest.mark.soak)])
def metadata(request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    if request.param == "postgres":
        with cluster() as running:
            url = running.url.replace("postgresql+asyncpg", "postgres") + "?sslmode=disable"
            yield url, running.start, running.stop
    else:
        with redis() as server:
            yield server.url, server.start, server.stop


async def test_jobs_go_on_syncs_catch_up_and_reads_wait(
    metadata: tuple[str, Callable[[], None], Callable[[], None]], place: Path, image_cache: Path
) -> None:
    url, start, stop = metadata
    async with station(place, image_cache, s3=True, storage_meta_url=url, storage_io_retries=1) as at:
        first = await at.start("cd /root && head -c 20000000 /dev/urandom > big && md5sum big > sums")
        await at.stop(first)
        vm_id = await at.start("cd /root && cat sums > a && md5sum a > b && sync && rm a b && sync")
        known = at.generation
        # The one that it reads.
        (below,) = (path for path in at.image(known).parent.glob("gen-*") if path != at.image(known))
        image = os.open(below, os.O_RDONLY | os.O_CLOEXEC)
        await asyncio.to_thread(stop)
        await at.storage_says("metadata")
        # What is written stays on the host, and nothing is called synced.
        ended = await at.caller.run(vm_id, "cd /root && echo 2 > new && md5sum new >> sums && wc -l < sums")
        assert ended.stdout == b"2\n", ended
        with pytest.raises(Problem) as refused:
            await at.sync(vm_id)
        assert refused.value.code == "unavailable"
        # What only the store has is waited for.
        forget(at, image)
        job_id = at.give(vm_id, f"echo 3 > /proc/sys/vm/drop_caches; {SUM}")
        other = await at.caller.whole("echo other")
        assert other.stdout == b"other\n"
        with pytest.raises(Problem, match="metadata engine"):
            await at.start()
        assert at.generation == known
        await asyncio.to_thread(start)
        await at.storage_says("ok")
        os.close(image)  # JuiceFS would have asked for its locks
        ended = await at.caller.ended(job_id)
        assert ended.stdout == b"2\n", ended
        await at.synced(vm_id)
        async with asyncio.timeout(PATIENCE):
            while at.generation == known:
                await asyncio.sleep(0.1)
        await at.stop(vm_id)
        again = await at.start()
        assert await at.run(again, SUM) == "2\n"
        assert await at.run(again, "dmesg | grep -ciE 'i/o error|ext4-fs error' || true") == "0\n"
