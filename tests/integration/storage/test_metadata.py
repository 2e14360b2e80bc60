"""Every metadata engine: a fleet's (PostgreSQL, Redis) works for two hosts; each may go away, and is made up for."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from mags.host.attachments import Attachments
from mags.host.storage import engine as engines
from mags.host.storage.config import StorageSettings
from mags.host.storage.engine import Engine
from mags.host.storage.errors import StaleEpoch, StorageUnavailable
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment
from tests.integration.storage.rig import MIB, SPOT, rig_on
from tests.integration.storage.volumes import OpenEngine, until
from tests.kit.postgres import cluster
from tests.kit.redis import redis


@dataclass
class Metadata:
    url: str
    start: Callable[[], None]
    stop: Callable[[], None]


@pytest.fixture(params=["postgres", "redis"])
def metadata(request: pytest.FixtureRequest) -> Iterator[Metadata]:
    if request.param == "postgres":
        with cluster() as running:
            url = running.url.replace("postgresql+asyncpg", "postgres") + "?sslmode=disable"
            yield Metadata(url, running.start, running.stop)
    else:
        with redis() as server:
            yield Metadata(server.url, server.start, server.stop)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Health is looked at all the time."""
    monkeypatch.setattr(engines, "HEALTH_INTERVAL", 0.2)
    monkeypatch.setattr(engines, "PROBE_TIMEOUT", 2.0)


@pytest.fixture
def settings(metadata: Metadata, s3_settings: StorageSettings) -> StorageSettings:
    return s3_settings.model_copy(update={"meta_url": SecretStr(metadata.url)})


async def test_two_hosts_share_a_fleets_store(settings: StorageSettings, place: Path, open_engine: OpenEngine) -> None:
    one = await open_engine(place / "one", settings)
    two = await open_engine(place / "two", settings, host_id="h2")
    async with rig_on(one, place) as rig:
        workspace = rig.attached.attachment.workspace_id
        await rig.qemu.write(7, SPOT, MIB)
        await rig.syncer.sync()
        await rig.qemu.write(8, SPOT + MIB, MIB)
        second = await rig.syncer.sync()
        (rig.attached.jfs / "f").write_text("at once")
        newer = Attachment(workspace_id=workspace, epoch=2, generation=second.generation, disk_gb=1)
        there = await two.workspaces.attach(newer, vm_id=new_id())
        with there.image.open("rb") as image:
            image.seek(SPOT)
            assert image.read(2 * MIB) == b"\x07" * MIB + b"\x08" * MIB
        assert (there.jfs / "f").read_text() == "at once"
        fork = Attachment(workspace_id=new_id(), epoch=1, disk_gb=1, base=workspace, base_generation=second.generation)
        assert (await two.workspaces.attach(fork, vm_id=new_id())).generation == 1
        await rig.qemu.write(9, SPOT, MIB)
        with pytest.raises(StaleEpoch):
            await rig.syncer.sync()
        await two.collect()
        with there.image.open("rb") as image:
            image.seek(SPOT)
            assert image.read(1) == b"\x07"


async def test_engine_that_goes_away_and_comes_back(
    settings: StorageSettings, metadata: Metadata, place: Path, open_engine: OpenEngine
) -> None:
    engine = await open_engine(place / "host", settings)
    async with rig_on(engine, place) as rig:
        await rig.qemu.write(1, SPOT, MIB)
        await rig.syncer.sync()
        metadata.stop()
        await rig.qemu.write(2, SPOT + MIB, MIB)
        with pytest.raises(StorageUnavailable):
            await rig.syncer.sync()
        await until(lambda: "metadata engine at 127.0.0.1:" in engine.status)
        with pytest.raises(StorageUnavailable, match=r"does not answer .*MAGS_HOST_STORAGE_META_URL"):
            await Engine.open(settings, place / "new", host_id="h3")
        await rig.qemu.write(3, SPOT + 2 * MIB, MIB)
        metadata.start()
        await rig.synced()
        assert rig.read(3 * MIB) == b"\x01" * MIB + b"\x02" * MIB + b"\x03" * MIB
        await until(lambda: engine.status == "ok")


@pytest.fixture
async def kept(place: Path, open_engine: OpenEngine) -> Path:
    """A local volume with a file in it, not mounted; its database."""
    engine = await open_engine(place)
    (engine.mount.point / "file").write_bytes(b"kept")
    await engine.close(unmount=True)
    return place / "meta.db"


async def test_missing_database_is_never_made_anew(place: Path, kept: Path, open_engine: OpenEngine) -> None:
    aside = kept.rename(kept.with_name("aside"))
    with pytest.raises(StorageUnavailable, match=r"meta\.db, is gone: put it back"):
        await Engine.open(StorageSettings(kind="local"), place, host_id="h1")
    assert not kept.exists()
    # A host that has not had the volume before finds the blocks, and no metadata.
    other = StorageSettings.model_validate({"kind": "local", "blocks_dir": place / "blocks"})
    with pytest.raises(StorageUnavailable, match="the store holds the blocks of one"):
        await Engine.open(other, place / "second", host_id="h2")
    aside.rename(kept)
    engine = await open_engine(place)
    assert (engine.mount.point / "file").read_bytes() == b"kept"


async def test_database_that_is_locked_or_none_is_said(place: Path, kept: Path, open_engine: OpenEngine) -> None:
    database = sqlite3.connect(kept, isolation_level=None)
    database.execute("pragma locking_mode=exclusive")
    database.execute("begin exclusive")
    with pytest.raises(StorageUnavailable, match="locked"):
        await Engine.open(StorageSettings(kind="local"), place, host_id="h1")
    database.close()
    whole = kept.read_bytes()
    kept.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageUnavailable, match="not a database"):
        await Engine.open(StorageSettings(kind="local"), place, host_id="h1")
    kept.write_bytes(whole)
    engine = await open_engine(place)
    assert (engine.mount.point / "file").read_bytes() == b"kept"


async def test_database_that_is_taken_away_under_a_mount_is_said(place: Path, open_engine: OpenEngine) -> None:
    engine = await open_engine(place)
    (place / "meta.db").rename(place / "aside")
    await until(lambda: "is gone: put it back" in engine.status)
    (place / "aside").rename(place / "meta.db")
    await until(lambda: engine.status == "ok")


async def test_a_mount_outlives_a_host_program_that_finds_no_metadata(place: Path) -> None:
    """VMs read from it; and as long as JuiceFS has the file open, it is not lost."""
    local = StorageSettings.model_validate({"kind": "local"})
    engine = await Engine.open(local, place / "host", host_id="h1")
    kept = engine.mount.point / "kept"
    kept.write_text("1")
    file, aside = place / "host" / "meta.db", place / "host" / "aside.db"
    file.rename(aside)
    with pytest.raises(StorageUnavailable, match="put it back"):
        await engine.workspaces.manifests()
    await engine.close(unmount=False)
    with pytest.raises(StorageUnavailable, match="put it back"):
        await Engine.open(local, place / "host", host_id="h1")
    assert kept.read_text() == "1"
    aside.rename(file)
    again = await Engine.open(local, place / "host", host_id="h1")
    assert kept.read_text() == "1"
    await again.close(unmount=False)
    file.rename(aside)
    async with Attachments.open(local, place / "host", host_id="h1") as attachments:
        attachments.unmount = True
    assert not kept.exists()
