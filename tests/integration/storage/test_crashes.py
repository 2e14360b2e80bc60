"""What a crash, or work that hung and was given up, leaves on the volume; and what others make of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mags.host.storage import copies, layout
from mags.host.storage.attached import Attached
from mags.host.storage.collector import LEASE_LIFE
from mags.host.storage.engine import Engine
from mags.host.storage.errors import GenerationMissing, StaleEpoch, StorageUnavailable
from mags.host.storage.layout import GIB
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment
from tests.integration.storage.volumes import OpenEngine

SPOT = 700 << 20


async def write(attached: Attached, data: bytes) -> int:
    draft = await attached.begin(attached.size)
    descriptor = os.open(draft, os.O_RDWR)
    os.pwrite(descriptor, data, SPOT)
    os.fsync(descriptor)
    os.close(descriptor)
    return await attached.publish(draft)


def read(image: Path, count: int) -> bytes:
    with image.open("rb") as file:
        return os.pread(file.fileno(), count, SPOT)


async def base_of(engine: Engine) -> str:
    """A workspace with a generation and two trees in /jfs."""
    workspace = new_id()
    attached = await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=1, disk_gb=1), vm_id=new_id())
    await write(attached, b"base")
    for name in ("a", "b"):
        (attached.jfs / name).mkdir()
        (attached.jfs / name / "f").write_text(name)
    await attached.release()
    return workspace


async def test_grown_disk_stays_over_the_blank_that_it_began_with(place: Path, open_engine: OpenEngine) -> None:
    engine = await open_engine(place)
    attachment, vm_id = Attachment(workspace_id=new_id(), epoch=1, disk_gb=1), new_id()
    await engine.workspaces.blank(2)
    image = (await engine.workspaces.attach(attachment, vm_id=vm_id)).image
    await engine.close(unmount=False)
    engine = await open_engine(place)
    attachment.disk_gb = 2
    again = await engine.workspaces.attach(attachment, vm_id=vm_id)
    assert again.image == image and image.stat().st_size == GIB and again.size == 2 * GIB


@pytest.mark.parametrize("breaks", ["the image", "/jfs"])
async def test_fork_that_was_interrupted_is_begun_anew(
    engine: Engine, breaks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await base_of(engine)
    fork = Attachment(workspace_id=new_id(), epoch=1, disk_gb=1, base=base, base_generation=1)
    vm_id = new_id()
    clone, clone_tree = copies.clone, engine.workspaces._clone_tree

    def no_image(source: Path, target: int) -> None:
        raise OSError(5, "broken")

    async def no_second_tree(source: Path, target: Path) -> None:
        if source.name == "b":
            raise StorageUnavailable("broken")
        await clone_tree(source, target)

    if breaks == "the image":
        monkeypatch.setattr(copies, "clone", no_image)
    else:
        monkeypatch.setattr(engine.workspaces, "_clone_tree", no_second_tree)
    with pytest.raises(StorageUnavailable, match="broken"):
        await engine.workspaces.attach(fork, vm_id=vm_id)
    monkeypatch.setattr(copies, "clone", clone)
    monkeypatch.setattr(engine.workspaces, "_clone_tree", clone_tree)
    attached = await engine.workspaces.attach(fork, vm_id=vm_id)
    assert read(attached.image, 4) == b"base"
    assert [(attached.jfs / name / "f").read_text() for name in ("a", "b")] == ["a", "b"]
    assert engine.workspaces.of(base).leases() == {}
    once_more = await engine.workspaces.attach(fork, vm_id=vm_id)
    assert once_more.image == attached.image


async def test_throw_away_copy_that_was_interrupted_has_all_of_jfs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await base_of(engine)
    copy = Attachment(workspace_id=base, base=base, base_generation=1, disk_gb=1, discard=True)
    vm_id, clone_tree = new_id(), engine.workspaces._clone_tree

    async def broken(source: Path, target: Path) -> None:
        raise StorageUnavailable("broken")

    monkeypatch.setattr(engine.workspaces, "_clone_tree", broken)
    with pytest.raises(StorageUnavailable):
        await engine.workspaces.attach(copy, vm_id=vm_id)
    monkeypatch.setattr(engine.workspaces, "_clone_tree", clone_tree)
    attached = await engine.workspaces.attach(copy, vm_id=vm_id)
    assert sorted(path.name for path in attached.jfs.iterdir()) == ["a", "b"]


async def test_work_that_was_given_up_does_not_publish_a_later_draft(engine: Engine) -> None:
    attached = await engine.workspaces.attach(Attachment(workspace_id=new_id(), epoch=1, disk_gb=1), vm_id=new_id())
    given_up = await attached.begin(GIB)
    half_written = await attached.begin(GIB)
    with pytest.raises(StorageUnavailable):
        await attached.publish(given_up)
    assert half_written.exists() and attached.generations.numbers() == []
    assert await attached.publish(half_written) == 1


async def test_nothing_comes_after_the_end_of_a_lease(engine: Engine) -> None:
    attached = await engine.workspaces.attach(Attachment(workspace_id=new_id(), epoch=1, disk_gb=1), vm_id=new_id())
    await attached.release()
    attached.beat()
    assert attached.generations.leases() == {}


async def test_deleted_base_takes_no_new_copies(engine: Engine) -> None:
    base = await base_of(engine)
    reader = Attachment(workspace_id=base, base=base, base_generation=1, disk_gb=1, discard=True)
    vm_id = new_id()
    await engine.workspaces.attach(reader, vm_id=vm_id)
    await engine.workspaces.delete(base)
    again = await engine.workspaces.attach(reader, vm_id=vm_id)  # the same VM goes on
    assert read(again.image, 4) == b"base"
    for late in (reader, Attachment(workspace_id=new_id(), epoch=1, disk_gb=1, base=base, base_generation=1)):
        with pytest.raises(GenerationMissing, match="was deleted"):
            await engine.workspaces.attach(late, vm_id=new_id())
    await again.release()
    with pytest.raises(GenerationMissing, match="was deleted"):
        await engine.workspaces.attach(reader, vm_id=new_id())
    with pytest.raises(GenerationMissing):
        await engine.workspaces.attach(Attachment(workspace_id=base, epoch=2, generation=1), vm_id=new_id())
    assert await engine.workspaces.manifests() == [] and not engine.workspaces.of(base).directory.exists()


async def test_deletion_that_was_interrupted_is_finished_and_never_seen(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await base_of(engine)

    def killed(path: Path) -> None:
        raise OSError(5, "killed")

    with monkeypatch.context() as patched:
        patched.setattr("mags.host.storage.generations.remove_tree", killed)
        with pytest.raises(StorageUnavailable):
            await engine.workspaces.delete(base)
    assert await engine.workspaces.manifests() == []
    assert list((engine.mount.point / "deleted").iterdir()) != []
    await engine.workspaces.collect()
    assert list((engine.mount.point / "deleted").iterdir()) == []


async def test_what_nobody_owns_is_collected(engine: Engine) -> None:
    base = await base_of(engine)
    dead, alive = new_id(), new_id()
    copy = Attachment(workspace_id=base, base=base, base_generation=1, disk_gb=1, discard=True)
    await engine.workspaces.attach(copy, vm_id=alive)
    (engine.mount.point / "scratch" / dead / "jfs").mkdir(parents=True)
    unfinished = engine.workspaces.of(new_id())
    unfinished.make()
    (half := engine.mount.point / "blanks" / "tmp1234").touch()
    await engine.workspaces.collect(now=0)
    assert [path.name for path in (engine.mount.point / "scratch").iterdir()] == [alive]
    await engine.workspaces.collect(now=LEASE_LIFE)
    assert unfinished.directory.exists() and half.exists()
    await engine.workspaces.collect(now=LEASE_LIFE + 1)
    assert not unfinished.directory.exists() and not half.exists()


async def test_damaged_lease_holds_everything_and_nothing_else_up(engine: Engine) -> None:
    damaged, other = await base_of(engine), await base_of(engine)
    (engine.workspaces.of(damaged).directory / layout.lease_name(new_id())).write_text("{")
    draft = engine.workspaces.of(other).new_draft(new_id())
    draft.touch()
    (engine.mount.point / "scratch" / new_id()).mkdir(parents=True)
    await engine.workspaces.collect()
    assert not draft.exists() and len(list((engine.mount.point / "scratch").iterdir())) == 1
    await engine.workspaces.delete(other)
    with pytest.raises(StorageUnavailable, match="damaged"):
        await engine.workspaces.delete(damaged)
    assert engine.workspaces.of(damaged).numbers() == [1]


async def test_manifest_never_gets_an_older_epoch_back(engine: Engine) -> None:
    """An old owner's last words may come late and undo the newer one's: its next sync says it again."""
    workspace = new_id()
    attached = await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=2, disk_gb=1), vm_id=new_id())
    manifest = attached.generations.manifest()
    assert manifest is not None
    manifest.epoch = 1
    attached.generations.write_manifest(manifest)
    await attached.committed(await write(attached, b"x"))
    with pytest.raises(StaleEpoch):
        await engine.workspaces.attach(Attachment(workspace_id=workspace, epoch=1, disk_gb=1), vm_id=new_id())
