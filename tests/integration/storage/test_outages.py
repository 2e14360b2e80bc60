"""The object store goes away: syncs fail with a reason, nothing is lost, and all is made up for afterwards."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mags.host.storage import engine as engines
from mags.host.storage.config import StorageSettings
from mags.host.storage.errors import StorageError, StorageUnavailable
from mags.host.storage.seaweedfs import SeaweedFS
from tests.integration.storage.rig import MIB, SPOT, rig_on
from tests.integration.storage.volumes import OpenEngine, until
from tests.kit.objectstore import cut


@pytest_asyncio.fixture
async def store(place: Path) -> AsyncIterator[SeaweedFS]:
    """One of its own, to be stopped and killed."""
    server = SeaweedFS(place / "weed")
    await server.start()
    try:
        yield server
    finally:
        await cut(server)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Health is looked at all the time."""
    monkeypatch.setattr(engines, "HEALTH_INTERVAL", 0.2)


@pytest.fixture
def settings(store: SeaweedFS, place: Path) -> StorageSettings:
    """Impatient, and with metadata that a second mount finds too."""
    return StorageSettings.model_validate(
        {
            "kind": "s3", "endpoint": store.endpoint, "access_key": store.access_key, "secret_key": store.secret_key,
            "put_timeout_s": 2, "get_timeout_s": 2, "io_retries": 1, "volume": "out", "bucket": "out",
            "meta_url": f"sqlite3://{place}/meta.db?_journal=WAL&_timeout=5000",
        }
    )  # fmt: skip


async def test_outage_is_said_and_made_up_for(
    place: Path, open_engine: OpenEngine, store: SeaweedFS, settings: StorageSettings
) -> None:
    engine = await open_engine(place / "host", settings)
    async with rig_on(engine, place) as rig:
        await rig.qemu.write(1, SPOT, MIB)
        await rig.syncer.sync()
        await cut(store)
        await rig.qemu.write(2, SPOT + MIB, MIB)
        with pytest.raises(StorageUnavailable):
            await rig.syncer.sync()
        await until(lambda: "does not answer" in engine.status)
        await rig.qemu.write(3, SPOT + 2 * MIB, MIB)  # the guest goes on
        await store.start()
        await rig.synced()
        assert rig.read(3 * MIB) == b"\x01" * MIB + b"\x02" * MIB + b"\x03" * MIB
        await until(lambda: engine.status == "ok")


async def test_store_killed_in_the_middle_of_syncs(
    place: Path, open_engine: OpenEngine, store: SeaweedFS, settings: StorageSettings
) -> None:
    """It is started again by its supervisor. Another host, with nothing in its cache, finds each whole generation."""
    engine = await open_engine(place / "host", settings)
    elsewhere = await open_engine(place / "elsewhere", settings, host_id="h2")
    chance, failed, syncs = random.Random(5), 0, []
    async with rig_on(engine, place) as rig:
        generations = elsewhere.workspaces.of(rig.attached.attachment.workspace_id)
        wanted = bytearray(16 * MIB)

        async def write() -> None:
            data, offset = chance.randbytes(6 * MIB), chance.randrange(10) * MIB
            await rig.qemu.write_bytes(data, SPOT + offset)
            wanted[offset : offset + len(data)] = data

        for _ in range(2):  # how long one takes that nothing befalls
            await write()
            begun = time.monotonic()
            await rig.syncer.sync()
            syncs.append(time.monotonic() - begun)
        for _ in range(24):
            before = bytes(wanted), rig.attached.generation
            await write()
            syncing = asyncio.create_task(rig.syncer.sync())
            await asyncio.sleep(chance.random() * syncs[-1])
            assert store.pid is not None
            os.kill(store.pid, signal.SIGKILL)
            try:
                await syncing
            except StorageError:
                failed += 1
                await until(lambda: store.pid is not None)
                await served(store)  # the last whole one is as it was
                assert read(generations.path(before[1]), len(wanted)) == before[0]
            synced = await rig.synced()
            await served(store)
            assert read(generations.path(synced.generation), len(wanted)) == wanted
            if failed >= 2:
                break
    assert failed >= 2


async def served(store: SeaweedFS) -> None:
    async with asyncio.timeout(60):
        while not await store._ready():
            await asyncio.sleep(0.1)


def read(image: Path, count: int) -> bytes:
    with image.open("rb") as file:
        return os.pread(file.fileno(), count, SPOT)
