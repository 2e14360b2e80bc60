"""Copies of a base that is synced over and over: the generation that control named may be gone when its host looks."""

from __future__ import annotations

import asyncio
import os

import pytest

from mags.host.storage.engine import Engine
from mags.host.storage.errors import GenerationMissing
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment

SPOT = 100 << 20


async def test_copies_are_of_what_control_named_or_newer(engine: Engine) -> None:
    base, rounds = new_id(), 30
    owner = await engine.workspaces.attach(Attachment(workspace_id=base, epoch=1, disk_gb=1), vm_id=new_id())
    named = 0

    async def sync_again_and_again() -> None:
        nonlocal named
        for number in range(1, rounds + 1):
            draft = await owner.begin(owner.size)
            descriptor = os.open(draft, os.O_RDWR)
            os.pwrite(descriptor, b"%04d" % number, SPOT)
            os.fsync(descriptor)
            os.close(descriptor)
            await owner.committed(await owner.publish(draft))
            named = max(1, number - 5)  # control hears of it late

    async def copy(discard: bool) -> None:
        at_least = named
        attachment = Attachment(
            workspace_id=new_id(), epoch=1, disk_gb=1, base=base, base_generation=at_least, discard=discard
        )
        copied = await engine.workspaces.attach(attachment, vm_id=new_id())
        with copied.image.open("rb") as image:
            assert int(os.pread(image.fileno(), 4, SPOT)) >= at_least
        await copied.release()

    syncing = asyncio.create_task(sync_again_and_again())
    made = 0
    while not syncing.done():
        if named:
            await asyncio.gather(copy(True), copy(False))
            made += 1
        await asyncio.sleep(0)
    await syncing
    assert made > 3
    assert list(engine.workspaces.of(base).leases()) == [owner.vm_id]


async def test_base_that_never_had_such_a_generation_is_refused(engine: Engine) -> None:
    base = new_id()
    await engine.workspaces.attach(Attachment(workspace_id=base, epoch=1, disk_gb=1), vm_id=new_id())
    wrong = Attachment(workspace_id=new_id(), epoch=1, disk_gb=1, base=base, base_generation=7)
    with pytest.raises(GenerationMissing):
        await engine.workspaces.attach(wrong, vm_id=new_id())
