from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path

import pytest

from mags.host.storage import layout
from mags.host.storage.attached import Attached
from mags.host.storage.collector import LEASE_LIFE
from mags.host.storage.config import StorageSettings
from mags.host.storage.engine import Engine
from mags.host.storage.errors import GenerationMissing, StaleEpoch, StorageError
from mags.host.storage.layout import GIB
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment
from tests.integration.storage.volumes import OpenEngine
from tests.kit.objectstore import count_blocks

SPOT = 700 << 20
"""Offset of the bytes that these tests write; far behind what mkfs writes."""


async def write(attached: Attached, data: bytes, *, offset: int = SPOT) -> int:
    """Do what a sync does: a draft, bytes, fsync, publish."""
    draft = await attached.begin(attached.size)
    descriptor = os.open(draft, os.O_RDWR)
    os.pwrite(descriptor, data, offset)
    os.fsync(descriptor)
    os.close(descriptor)
    return await attached.publish(draft)


def read(image: Path, count: int, *, offset: int = SPOT) -> bytes:
    with image.open("rb") as file:
        return os.pread(file.fileno(), count, offset)


async def test_new_workspace_starts_empty_and_gains_generations(engine: Engine) -> None:
    attachment = Attachment(workspace_id=new_id(), epoch=1, disk_gb=1)
    attached = await engine.workspaces.attach(attachment, vm_id=new_id(), owner="o", name="w")
    assert attached.image.stat().st_size == attached.size == GIB
    assert attached.generation == 0
    assert await write(attached, b"one") == 1
    await attached.committed(1)
    assert await write(attached, b"two", offset=SPOT + 3) == 2
    await attached.committed(2)
    generations = engine.workspaces.of(attachment.workspace_id)
    assert read(generations.path(2), 6) == b"onetwo"
    assert read(generations.path(1), 6) == b"one\0\0\0"
    used = await attached.used_bytes()
    assert 0 < used < 100 << 20
    [manifest] = await engine.workspaces.manifests()
    assert (manifest.owner, manifest.name, manifest.generation, manifest.epoch) == ("o", "w", 2, 1)
    await attached.release()
    again = await engine.workspaces.attach(
        Attachment(workspace_id=attachment.workspace_id, epoch=2, generation=2, disk_gb=1), vm_id=new_id()
    )
    assert read(again.image, 6) == b"onetwo"


async def test_old_generations_go_unless_leased(engine: Engine) -> None:
    workspace = new_id()
    first = await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=1, disk_gb=1), vm_id=new_id())
    for number in range(1, 4):
        assert await write(first, b"%d" % number) == number
        await first.committed(number)
    generations = engine.workspaces.of(workspace)
    assert generations.numbers() == [2, 3]
    reader = await engine.workspaces.attach(
        Attachment(workspace_id=workspace, base=workspace, base_generation=2, disk_gb=1, discard=True), vm_id=new_id()
    )
    for number in range(4, 7):
        await write(first, b"%d" % number)
        await first.committed(number)
    assert generations.numbers() == [2, 5, 6]
    assert read(reader.image, 1) == b"2"
    await reader.release()
    await write(first, b"7")
    await first.committed(7)
    assert generations.numbers() == [6, 7]


async def test_attaching_the_same_vm_again_goes_on_where_it_was(place: Path, open_engine: OpenEngine) -> None:
    engine = await open_engine(place)
    attachment, vm_id = Attachment(workspace_id=new_id(), epoch=1, disk_gb=1), new_id()
    attached = await engine.workspaces.attach(attachment, vm_id=vm_id)
    await write(attached, b"x")
    await engine.close(unmount=False)
    engine = await open_engine(place)
    again = await engine.workspaces.attach(attachment, vm_id=vm_id)
    assert again.generation == 1
    assert again.image == attached.image and again.image.parent.name == "blanks"


async def test_stale_owner_can_neither_attach_nor_publish(engine: Engine) -> None:
    workspace = new_id()
    old = await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=1, disk_gb=1), vm_id=new_id())
    draft = await old.begin(old.size)
    new = await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=2, disk_gb=1), vm_id=new_id())
    with pytest.raises(StaleEpoch, match="epoch 2, ours is 1"):
        await old.publish(draft)
    with pytest.raises(StaleEpoch):
        await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=1, disk_gb=1), vm_id=new_id())
    assert await write(new, b"new") == 1


async def test_two_owners_of_one_epoch_never_write_one_file(engine: Engine) -> None:
    """Even if the database made a mistake, numbers are given once."""
    workspace = new_id()
    pair = [
        await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=1, disk_gb=1), vm_id=new_id())
        for _ in range(2)
    ]
    numbers = await asyncio.gather(*(write(one, b"x") for one in pair))
    assert sorted(numbers) == [1, 2]


async def test_fork_is_a_copy_that_outlives_its_base(engine: Engine) -> None:
    base_id, fork_id = new_id(), new_id()
    base = await engine.workspaces.attach(Attachment(workspace_id=base_id, epoch=1, disk_gb=1), vm_id=new_id())
    await write(base, b"base")
    (base.jfs / "d").mkdir()
    (base.jfs / "d" / "f").write_bytes(b"in jfs")
    fork = await engine.workspaces.attach(
        Attachment(workspace_id=fork_id, epoch=1, disk_gb=2, base=base_id, base_generation=1), vm_id=new_id()
    )
    assert fork.generation == 1 and fork.size == 2 * GIB
    assert (fork.jfs / "d" / "f").read_bytes() == b"in jfs"
    await write(base, b"CHANGED")
    (base.jfs / "d" / "f").write_bytes(b"changed")
    await base.release()
    await engine.workspaces.delete(base_id)
    assert read(fork.image, 7) == b"base\0\0\0"
    assert (fork.jfs / "d" / "f").read_bytes() == b"in jfs"
    await write(fork, b"mine")
    assert read(engine.workspaces.of(fork_id).path(2), 4) == b"mine"


async def test_chain_of_twenty_forks(engine: Engine) -> None:
    ids = [new_id() for _ in range(21)]
    first = await engine.workspaces.attach(Attachment(workspace_id=ids[0], epoch=1, disk_gb=1), vm_id=new_id())
    number = await write(first, b"%02d" % 0)
    for depth, (base, own) in enumerate(itertools.pairwise(ids), 1):
        fork = await engine.workspaces.attach(
            Attachment(workspace_id=own, epoch=1, disk_gb=1, base=base, base_generation=number), vm_id=new_id()
        )
        number = await write(fork, b"%02d" % depth, offset=SPOT + 2 * depth)
    image = engine.workspaces.of(ids[-1]).path(number)
    assert read(image, 42) == b"".join(b"%02d" % depth for depth in range(21))


async def test_throw_away_copies_of_one_base(engine: Engine) -> None:
    base_id = new_id()
    base = await engine.workspaces.attach(Attachment(workspace_id=base_id, epoch=1, disk_gb=1), vm_id=new_id())
    await write(base, b"base")
    (base.jfs / "f").write_bytes(b"x")
    copies = [
        await engine.workspaces.attach(
            Attachment(workspace_id=base_id, base=base_id, base_generation=1, disk_gb=1, discard=True), vm_id=new_id()
        )
        for _ in range(5)
    ]
    (copies[0].jfs / "f").write_bytes(b"changed")
    assert {one.image for one in copies} == {engine.workspaces.of(base_id).path(1)}
    assert (copies[1].jfs / "f").read_bytes() == b"x" == (base.jfs / "f").read_bytes()
    with pytest.raises(StorageError, match="dropped"):
        await copies[0].begin(GIB)
    for one in copies:
        await one.release()
    assert list((engine.mount.point / "scratch").iterdir()) == []


async def test_delete_waits_for_readers(engine: Engine) -> None:
    workspace = new_id()
    attached = await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=1, disk_gb=1), vm_id=new_id())
    await write(attached, b"x")
    reader = await engine.workspaces.attach(
        Attachment(workspace_id=workspace, base=workspace, base_generation=1, disk_gb=1, discard=True), vm_id=new_id()
    )
    await attached.release()
    await engine.workspaces.delete(workspace)
    await engine.workspaces.delete(workspace)
    assert await engine.workspaces.manifests() == []
    assert read(reader.image, 1) == b"x"
    with pytest.raises(StaleEpoch, match="deleted"):
        await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=2, generation=1), vm_id=new_id())
    await reader.release()
    assert not engine.workspaces.of(workspace).directory.exists()


async def test_missing_generation_and_odd_names_are_refused(engine: Engine) -> None:
    with pytest.raises(GenerationMissing, match="metadata engine"):
        await engine.workspaces.attach(Attachment(workspace_id=new_id(), epoch=1, generation=7), vm_id=new_id())
    for odd in ("..", "a/b", "", "x" * 300, "../../etc", "A B"):
        with pytest.raises(StorageError, match="not the id"):
            await engine.workspaces.attach(Attachment(workspace_id=odd), vm_id=new_id())
        with pytest.raises(StorageError, match="not the id"):
            await engine.workspaces.attach(Attachment(workspace_id=new_id()), vm_id=odd)


async def test_database_from_a_backup_gets_the_newest_committed_generation(engine: Engine) -> None:
    workspace = new_id()
    attached = await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=1, disk_gb=1), vm_id=new_id())
    for number in range(1, 5):
        await write(attached, b"%d" % number)
        await attached.committed(number)
    await write(attached, b"5")  # never committed
    old = await engine.workspaces.attach(
        Attachment(workspace_id=workspace, epoch=2, generation=1, disk_gb=1), vm_id=new_id()
    )
    assert old.generation == 4 and read(old.image, 1) == b"4"


async def test_leases_of_dead_hosts_end_after_a_day_of_standing_still(place: Path, open_engine: OpenEngine) -> None:
    engine = await open_engine(place)
    workspace = new_id()
    mine = await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=1, disk_gb=1), vm_id=new_id())
    dead, alive = new_id(), new_id()
    generations = engine.workspaces.of(workspace)
    for vm_id in (dead, alive):
        generations.lease(layout.Lease(vm_id=vm_id, host_id="other"))
    (generations.directory / layout.draft_name(dead, "0")).touch()
    await engine.workspaces.collect(now=0)
    generations.lease(layout.Lease(vm_id=alive, host_id="other", beat=1))
    await engine.workspaces.collect(now=LEASE_LIFE)
    assert set(generations.leases()) == {mine.vm_id, dead, alive}
    await engine.workspaces.collect(now=LEASE_LIFE + 1)
    assert set(generations.leases()) == {mine.vm_id, alive}
    assert not (generations.directory / layout.draft_name(dead, "0")).exists()
    await engine.workspaces.beat()
    assert generations.leases()[mine.vm_id].beat == 1


async def test_half_done_drop_is_finished_or_undone(engine: Engine) -> None:
    workspace = new_id()
    attached = await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=1, disk_gb=1), vm_id=new_id())
    await write(attached, b"x")
    await write(attached, b"y")
    generations = engine.workspaces.of(workspace)
    for number in (1, 2):
        path = generations.path(number)
        path.rename(path.with_name(layout.dropped_name(number)))
    await engine.workspaces.collect()
    assert generations.numbers() == [2]


async def test_second_installation_sees_and_reads_every_workspace(
    place: Path, open_engine: OpenEngine, s3_settings: StorageSettings
) -> None:
    meta = s3_settings.model_copy(
        update={"meta_url": StorageSettings(meta_url=f"sqlite3://{place}/m.db?_journal=WAL&_timeout=5000").meta_url}
    )
    one = await open_engine(place / "one", meta)
    workspace = new_id()
    attached = await one.workspaces.attach(
        Attachment(workspace_id=workspace, epoch=3, disk_gb=1), vm_id=new_id(), owner="o", name="project"
    )
    await write(attached, b"far away")
    await attached.committed(1)
    two = await open_engine(place / "two", meta, host_id="h2")
    [manifest] = await two.workspaces.manifests()
    assert manifest.name == "project"
    there = await two.workspaces.attach(
        Attachment(workspace_id=workspace, epoch=4, generation=manifest.generation, disk_gb=1), vm_id=new_id()
    )
    assert read(there.image, 8) == b"far away"
    with pytest.raises(StaleEpoch):
        await write(attached, b"late")


async def test_deleting_frees_the_objects(place: Path, open_engine: OpenEngine, s3_settings: StorageSettings) -> None:
    engine = await open_engine(place, s3_settings)
    await engine.workspaces.blank(1)
    before = await count_blocks(s3_settings)
    workspace = new_id()
    attached = await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=1, disk_gb=1), vm_id=new_id())
    await write(attached, os.urandom(10 << 20))
    await attached.committed(1)
    for number in range(2, 6):
        await write(attached, os.urandom(4096))
        await attached.committed(number)
    assert await count_blocks(s3_settings) > before + 2
    await attached.release()
    await engine.workspaces.delete(workspace)
    await engine.collect()
    async with asyncio.timeout(60):
        while await count_blocks(s3_settings) != before:
            await asyncio.sleep(0.2)
