"""Images appear whole under their names, or not at all."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from mags.host.images import Image, ImageInvalid, ImageMissing, ImageStore
from mags.host.images.store import check_name


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    agent = tmp_path / "agent"
    agent.write_bytes(b"agent")
    return ImageStore(tmp_path / "cache", agent)


async def publish(store: ImageStore, content: bytes, name: str = "mine") -> Image:
    async with store.locked(f"image-{name}"), store.workspace() as scratch:
        (scratch / "rootfs").write_bytes(content)
        image = Image(name, "", 0, "a test", "2026-01-01T00:00:00.000Z", "", ("sh",), ("python3",))
        return await store.publish(scratch / "rootfs", image)


async def test_a_published_image_is_found(store: ImageStore) -> None:
    image = await publish(store, b"root")
    assert store.find("mine") == image
    assert (image.size, len(image.key), image.missing) == (4, 64, ("python3",))
    assert store.path(image).read_bytes() == b"root"
    assert store.path(image).stat().st_mode & 0o777 == 0o444
    await publish(store, b"root", "another")
    assert [each.name for each in store.list()] == ["another", "mine"]
    assert list((store.cache / "tmp").iterdir()) == []


async def test_a_new_build_takes_the_place_of_the_old(store: ImageStore) -> None:
    old = store.path(await publish(store, b"old"))
    with old.open("rb") as running:
        new = await publish(store, b"new")
        assert running.read() == b"old"
    assert store.path(store.find("mine")).read_bytes() == b"new"
    assert not old.exists()
    again = await publish(store, b"new")
    assert (again.key, store.path(again).read_bytes()) == (new.key, b"new")


async def test_a_removed_image_is_gone(store: ImageStore) -> None:
    await publish(store, b"root")
    await store.remove("mine")
    assert store.list() == []
    assert not (store.cache / "images" / "mine").exists()
    with pytest.raises(ImageMissing):
        await store.remove("mine")


@pytest.mark.parametrize("name", ["missing", "../mine", "", "/etc", "a/b", "Mine"])
async def test_what_is_not_there_is_missing(store: ImageStore, name: str) -> None:
    await publish(store, b"root")
    with pytest.raises(ImageMissing):
        store.find(name)
    with pytest.raises(ImageMissing):
        await store.boot_files(name)


@pytest.mark.parametrize("name", ["", "-x", "UPPER", "a/b", "..", "x" * 64, "space d", "new\nline", "x\n"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(ImageInvalid):
        check_name(name)
    assert check_name("debian-12_python.3") == "debian-12_python.3"


async def test_a_damaged_record_is_no_image(store: ImageStore) -> None:
    image = await publish(store, b"root")
    store.path(image).unlink()
    assert store.list() == []
    (store.cache / "images/mine/meta.json").write_text("{")
    assert store.list() == []


async def test_one_builder_at_a_time(store: ImageStore) -> None:
    inside = most = 0

    async def build() -> None:
        nonlocal inside, most
        async with store.locked("thing"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(build() for _ in range(5)))
    assert most == 1


async def test_what_killed_builders_left_is_swept(store: ImageStore) -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    left, alive = (store.cache / "tmp" / f"{pid}-abcd" for pid in (dead.pid, os.getpid()))
    for path in (left, alive):
        path.mkdir(parents=True)
    async with store.workspace():
        pass
    assert not left.exists() and alive.exists()


async def test_an_empty_disk_is_made_once_and_is_sparse(store: ImageStore) -> None:
    first, second = await asyncio.gather(store.blank(2), store.blank(2))
    assert first == second
    status = first.stat()
    assert (status.st_size, status.st_mode & 0o777) == (2 << 30, 0o444)
    assert status.st_blocks * 512 < 16 << 20
    subprocess.run(["fsck.ext4", "-fn", str(first)], check=True, capture_output=True, timeout=60)
    listing = subprocess.run(
        ["debugfs", "-R", "ls -p /", str(first)], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert {"upper", "work"} <= {line.split("/")[5] for line in listing.splitlines() if line}
