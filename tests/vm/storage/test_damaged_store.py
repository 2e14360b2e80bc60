"""The object store answers, but has lost what it was given: all of it, or one block."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mags.host.storage.s3 import S3
from mags.host.storage.seaweedfs import SeaweedFS
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from tests.kit.host_world import PATIENCE
from tests.vm.storage.station import forget, station

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

SUM = "cd /root && md5sum -c sums | grep -c OK"


async def taken(store: SeaweedFS, *, holding: bytes = b"") -> dict[str, bytes]:
    """Objects that are removed from the bucket: the volume's, or those of them that hold these bytes."""
    client = S3(store.bucket("mags"))
    try:
        found: dict[str, bytes] = {}
        async for key in client.keys("mags/"):
            body = await client.find(key)  # JuiceFS may have joined it with others, and removed it
            if body is not None and holding in body:
                found[key] = body
        for key in found:
            await client.delete(key)
        return found
    finally:
        await client.aclose()


async def put_back(store: SeaweedFS, objects: dict[str, bytes]) -> None:
    client = S3(store.bucket("mags"))
    try:
        for key, body in objects.items():
            await client.put(key, body)
    finally:
        await client.aclose()


async def test_nothing_is_called_synced_in_a_bucket_that_was_emptied(place: Path, image_cache: Path) -> None:
    async with station(place, image_cache, s3=True) as at:
        assert at.store is not None
        vm_id = await at.start("head -c 3000000 /dev/urandom > /root/1; cd /root && md5sum 1 > sums")
        await at.synced(vm_id)
        known = at.generation
        lost = await taken(at.store)
        await at.storage_says("is empty")
        assert await at.run(vm_id, f"head -c 3000000 /dev/urandom > /root/2; cd /root && md5sum 2 >> sums; {SUM}")
        with pytest.raises(Problem, match="is empty"):
            await at.sync(vm_id)
        assert at.generation == known
        await put_back(at.store, lost)
        await at.storage_says("ok")
        await at.synced(vm_id)
        await at.stop(vm_id)
        again = await at.start()
        assert await at.run(again, SUM) == "2\n"


async def test_one_lost_block_takes_no_other_file_along(place: Path, image_cache: Path) -> None:
    async with station(place, image_cache, s3=True, storage_io_retries=1, stall_patience_s=2) as at:
        assert at.store is not None
        first = await at.start(
            "cd /root && echo 1 > f && head -c 6000000 /dev/urandom > big && echo here-it-is >> big &&"
            " head -c 6000000 /dev/urandom >> big && md5sum big > sums"
        )
        await at.stop(first)
        vm_id = await at.start("echo 2 > /root/f; sync")
        job_id = at.give(vm_id, "while :; do echo 3 > /proc/sys/vm/drop_caches; md5sum < /root/big; sleep 0.5; done")
        lost: dict[str, bytes] = {}
        async with asyncio.timeout(PATIENCE):
            while "stands still" not in at.host.words():
                # Again and again: JuiceFS may just be joining it with others, and put it under another name.
                lost |= await taken(at.store, holding=b"here-it-is")
                forget(at, at.image(at.generation))
                await asyncio.sleep(0.2)
        await at.caller.stop(vm_id)
        await at.caller.told(m.VmChanged, vm_id=vm_id)
        assert (await at.caller.ended(job_id)).error
        async with asyncio.timeout(PATIENCE):
            while at.host.vms():
                await asyncio.sleep(0.1)
        again = await at.start()
        assert await at.run(again, "cat /root/f") == "2\n"
        await put_back(at.store, lost)
        assert await at.run(again, SUM) == "1\n"
