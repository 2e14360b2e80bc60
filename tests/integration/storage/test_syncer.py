"""Syncs from a real QEMU's disk to a real volume. The guest's part is played here: it writes only when it is told."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mags.host.storage.engine import Engine
from mags.host.storage.errors import StaleEpoch, StorageUnavailable
from mags.host.storage.syncer import recover
from mags.host.vmm.qemu.increment import apply_file
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment
from tests.integration.storage.rig import MIB, SPOT, Rig, rig_on


@pytest_asyncio.fixture
async def rig(engine: Engine, place: Path) -> AsyncIterator[Rig]:
    async with rig_on(engine, place) as one:
        yield one


async def test_each_sync_is_a_generation_of_what_changed(rig: Rig) -> None:
    await rig.qemu.write(7, SPOT, MIB)
    first = await rig.syncer.sync()
    assert (first.generation, first.bytes) == (1, MIB) and rig.guest.asked == ["flush", "freeze", "thaw"]
    await rig.qemu.write(8, SPOT, 4096)
    await rig.qemu.write(8, SPOT + 10 * MIB, 4096)
    second = await rig.syncer.sync()
    assert (second.generation, second.bytes) == (2, 2 * 65536)
    assert rig.read(4097) == b"\x08" * 4096 + b"\x07"
    assert rig.commits == [1, 2] and rig.syncer.trouble == ""


async def test_unchanged_disk_is_not_frozen_and_makes_no_generation(rig: Rig) -> None:
    await rig.qemu.write(7, SPOT, MIB)
    await rig.syncer.sync()
    await rig.qemu.write(7, 0, 512)  # what a thaw does
    rig.guest.asked.clear()
    again = await rig.syncer.sync()
    assert (again.generation, again.bytes) == (1, 0) and rig.guest.asked == ["flush"]


async def test_settled_guest_stays_frozen(rig: Rig) -> None:
    await rig.qemu.write(7, SPOT, MIB)
    await rig.syncer.settle()
    assert rig.guest.asked == ["flush", "freeze", "thaw", "flush", "freeze"]
    await rig.syncer.resume()
    assert rig.guest.asked[-1] == "thaw"


async def test_failed_commit_keeps_the_generation_and_is_made_up_for(rig: Rig) -> None:
    await rig.qemu.write(7, SPOT, MIB)
    rig.refusal = Problem("unavailable", "Control does not answer.")
    with pytest.raises(Problem):
        await rig.syncer.sync()
    assert rig.syncer.trouble == "Control does not answer."
    rig.refusal = None
    synced = await rig.syncer.sync()
    assert synced.generation == 1 and rig.commits == [1]
    assert rig.engine.workspaces.of(rig.attached.attachment.workspace_id).manifest().generation == 1  # type: ignore[union-attr]


async def test_newer_owner_stops_the_syncs(rig: Rig) -> None:
    await rig.qemu.write(7, SPOT, MIB)
    newer = Attachment(workspace_id=rig.attached.attachment.workspace_id, epoch=2, disk_gb=1)
    await rig.engine.workspaces.attach(newer, vm_id=new_id())
    with pytest.raises(StaleEpoch):
        async with asyncio.timeout(60):
            await rig.syncer.run(0.01)
    assert rig.attached.generation == 0


async def test_killed_volume_fails_one_sync_at_most(rig: Rig) -> None:
    await rig.qemu.write(7, SPOT, MIB)
    for pid in rig.engine.mount._processes():
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(100):
        while True:
            try:
                await rig.syncer.sync()
                break
            except StorageUnavailable:
                await asyncio.sleep(0.1)
    assert rig.read(MIB) == b"\x07" * MIB


async def test_killed_worker_in_the_middle_of_syncs(rig: Rig) -> None:
    for step in range(1, 5):
        await rig.qemu.write(step, SPOT + step * MIB, MIB)
        syncing = asyncio.create_task(rig.syncer.sync())
        await asyncio.sleep(0.02 * step)
        if len(found := sorted(rig.engine.mount._processes())) == 2:
            os.kill(found[-1], signal.SIGKILL)
        await asyncio.gather(syncing, return_exceptions=True)
    async with asyncio.timeout(100):
        while True:
            try:
                await rig.syncer.sync()
                break
            except StorageUnavailable:
                await asyncio.sleep(0.1)
    assert [rig.read(1, offset=SPOT + step * MIB)[0] for step in range(1, 5)] == [1, 2, 3, 4]


async def test_dead_vm_is_recovered_from_its_overlay(rig: Rig) -> None:
    await rig.qemu.write(1, SPOT, MIB)
    await rig.syncer.sync()
    await rig.qemu.write(2, SPOT + MIB, MIB)
    await rig.qemu.io("flush")
    rig.qemu.process.kill()
    await rig.qemu.process.wait()
    overlay = rig.qemu.directory / "disk.qcow2"
    size = rig.attached.size
    assert await recover(rig.attached, lambda draft: apply_file(overlay, draft, size)) == 2
    assert rig.read(2 * MIB) == b"\x01" * MIB + b"\x02" * MIB
