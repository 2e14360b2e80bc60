"""The host's clock is set forward and back under syncs, leases and collections: nothing is taken for old."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mags.host.attachments.hearing import Hearing
from mags.host.storage.config import StorageSettings
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment
from tests.integration.storage.rig import MIB, SPOT, rig_on
from tests.integration.storage.volumes import OpenEngine, until
from tests.kit import clocks

HOUR, DAY = 3600.0, 86400.0


@pytest.fixture
def shift() -> Iterator[Callable[[float], None]]:
    with clocks.movable() as move:
        yield move


async def test_nothing_is_collected_or_fenced_because_of_a_clock(
    place: Path, open_engine: OpenEngine, shift: Callable[[float], None]
) -> None:
    """Two hosts, whose clocks go apart: one's is set, with a collection on each after every sync."""
    settings = StorageSettings.model_validate(
        {
            "kind": "local",
            "blocks_dir": place / "blocks",
            "meta_url": f"sqlite3://{place}/meta.db?_journal=WAL&_timeout=5000",
        }
    )
    engine = await open_engine(place / "one", settings)
    other = await open_engine(place / "two", settings, host_id="h2")
    hearing = Hearing()
    hearing.heard(hearing.clock(), DAY / 2)
    async with rig_on(engine, place) as rig:
        name = rig.attached.attachment.workspace_id
        await rig.qemu.write(1, SPOT, MIB)
        await rig.syncer.sync()
        # Somebody elsewhere reads the first generation all the time.
        reader = await other.workspaces.attach(
            Attachment(workspace_id=name, base=name, base_generation=rig.attached.generation, disk_gb=1, discard=True),
            vm_id=new_id(),
        )
        for number, seconds in enumerate((DAY, -2 * DAY, DAY, HOUR, -2 * HOUR, HOUR), 2):
            shift(seconds)
            assert hearing.holds
            await rig.attached.check_owned()
            await rig.qemu.write(number, SPOT + number * MIB, MIB)
            synced = await rig.syncer.sync()
            assert abs(synced.synced_at_ms / 1000 - time.time()) < HOUR / 2, "people are told what the clock says"
            for each in (engine, other):
                await each.workspaces.beat()
                await each.collect()
            assert rig.read(MIB, offset=SPOT + number * MIB) == bytes([number]) * MIB
            with reader.image.open("rb") as image:
                assert os.pread(image.fileno(), MIB, SPOT) == b"\x01" * MIB
        assert set(rig.attached.generations.leases()) == {rig.attached.vm_id, reader.vm_id}
        await reader.release()
    hearing.heard(hearing.clock() - DAY, DAY / 2)
    assert hearing.holds, "what was heard later counts"


async def test_no_garbage_is_collected_right_after_the_clock_was_set(
    place: Path, open_engine: OpenEngine, shift: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    """JuiceFS spares young blocks, which are just being written; how old they are it reads from the clock."""
    settings = StorageSettings.model_validate({"kind": "local", "collect_interval_s": 0.3})
    engine = await open_engine(place / "one", settings)
    told = 0

    async def collect() -> None:
        nonlocal told
        told += 1

    engine.collect = collect  # type: ignore[method-assign]
    await until(lambda: told >= 2)
    for seconds in (DAY, -DAY):
        shift(seconds)
        before = told
        await until(lambda: "the clock was set" in caplog.text)
        assert told == before
        caplog.clear()
        await until(lambda before=before: told > before)  # type: ignore[misc]
