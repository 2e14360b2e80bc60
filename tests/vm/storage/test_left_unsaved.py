"""The store is gone while a VM stands still for want of it: the VM can be ended, and what it had is kept."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from mags.host.checks.unsaved import unsaved
from mags.host.storage import layout
from mags.protocol import messages as m
from tests.kit.host_world import PATIENCE
from tests.vm.storage.station import Station, forget, station

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


@asynccontextmanager
async def ended_while_it_stood_still(place: Path, cache: Path) -> AsyncIterator[Station]:
    """Its VM wrote a file, stood still before that was synced, and was ended; control knows. The store is away."""
    async with station(place, cache, s3=True, storage_io_retries=1, stall_patience_s=3) as at:
        assert at.store is not None
        first = await at.start("head -c 20000000 /dev/urandom > /root/big; echo 1 > /root/f")
        await at.stop(first)
        vm_id = await at.start("echo 2 > /root/f; sync")
        forget(at, at.image(at.generation))
        await at.store.stop()
        job_id = at.give(vm_id, "echo 3 > /proc/sys/vm/drop_caches; md5sum < /root/big")
        await at.says("stands still")
        await at.caller.stop(vm_id)
        told = await at.caller.told(m.VmChanged, vm_id=vm_id, state="failed")
        assert "kept on host h1" in told.reason
        assert (await at.caller.ended(job_id)).error
        with pytest.raises(AssertionError, match="no hypervisor"):
            at.host.hypervisor(vm_id)
        assert at.host.record(vm_id) is not None
        await at.caller.stop(vm_id)  # once more, at once
        yield at


async def test_what_it_had_is_saved_when_the_store_is_back(place: Path, image_cache: Path) -> None:
    async with ended_while_it_stood_still(place, image_cache) as at:
        assert at.store is not None
        known = at.generation
        await at.store.start()
        async with asyncio.timeout(PATIENCE):
            while at.generation == known or at.host.vms():
                await asyncio.sleep(0.1)
        again = await at.start()
        assert await at.run(again, "cat /root/f") == "2\n"


async def test_what_comes_too_late_is_set_aside(place: Path, image_cache: Path) -> None:
    """Somebody else has taken the workspace over, from its last sync, before the host could save anything."""
    async with ended_while_it_stood_still(place, image_cache) as at:
        assert at.store is not None
        at.host.kill()
        await at.store.start()
        take_over(at)
        at.host.start()
        await at.caller.ready()
        async with asyncio.timeout(PATIENCE):
            while at.host.vms():
                await asyncio.sleep(0.1)
        (kept,) = (at.host.data / "host" / "unsaved").iterdir()
        assert kept.name.startswith(at.workspace) and "came too late" in at.host.words()
        assert kept.stat().st_mode & 0o777 == 0o700 or kept.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.soak
async def test_an_operator_can_give_it_up(place: Path, image_cache: Path) -> None:
    async with ended_while_it_stood_still(place, image_cache) as at:
        assert at.store is not None
        state = at.host.data / "host"
        (waiting,) = unsaved(state)
        directory = Path(waiting.detail.rpartition(" ")[2])
        assert directory.parent == state / "vms"
        shutil.rmtree(directory)
        await at.says("its directory is gone")
        await at.store.start()
        async with asyncio.timeout(PATIENCE):
            while list((state / "records").iterdir()):
                await asyncio.sleep(0.1)
        assert unsaved(state) == []
        again = await at.start()
        assert await at.run(again, "cat /root/f") == "1\n"


def take_over(at: Station) -> None:
    """As another host does."""
    file = at.image(at.generation).parent / layout.MANIFEST
    manifest = msgspec.json.decode(file.read_bytes(), type=layout.Manifest)
    manifest.epoch += 1
    file.write_bytes(msgspec.json.encode(manifest))
