"""The host's disk is full under a VM with a workspace: syncs say so and are made up for, and the guest's files stay
whole."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu.blocksync import BlockSync
from mags.protocol.ids import new_id
from tests.vm.storage.conftest import Bench, Box

pytestmark = pytest.mark.vm

MIB = 1 << 20
WRITE = "mkdir -p /root/d; head -c {0} /dev/urandom > /root/d/{1} && (cd /root/d && md5sum {1} >> sums && sync)"
CHECK = "cd /root/d && md5sum -c sums | grep -vc OK; dmesg | grep -ciE 'i/o error|ext4-fs error'; wc -l < sums"


@pytest.fixture
def small(bench: Bench, tmp_path: Path) -> Iterator[Path]:
    """A small disk, where the VMs of the bench have their own files; the store is elsewhere."""
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m,mode=755", "none", disk], check=True, timeout=30)
    bench.place = disk
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True, timeout=30)


@contextmanager
def only(disk: Path, left: int) -> Iterator[None]:
    """Inside, the disk has this many bytes left."""
    status = subprocess.run(["stat", "-f", "-c", "%a %S", disk], check=True, capture_output=True, text=True, timeout=30)
    blocks, size = map(int, status.stdout.split())
    filler = disk / "filler"
    subprocess.run(["fallocate", "-l", str(blocks * size - left), filler], check=True, timeout=30)
    try:
        yield
    finally:
        filler.unlink()


async def whole(bench: Bench, box: Box, workspace: str, files: int) -> None:
    """What the VM has is whole, and so is what the next one gets."""
    expected = f"0\n0\n{files}\n"
    assert await box.run(CHECK) == expected
    await box.syncer.sync()
    await bench.end(box)
    again = await bench.start(bench.attachment(workspace))
    assert await again.run(CHECK) == expected
    await bench.end(again)


async def test_without_room_for_a_sync_it_says_so_and_is_made_up_for(bench: Bench, small: Path) -> None:
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    await box.run(WRITE.format(MIB, "first"))
    await box.syncer.sync()
    with only(small, 100 * MIB):
        await box.run(WRITE.format(20 * MIB, "second"))
        with pytest.raises(VmmError, match=r"host's disk has \d+ MiB left and a sync needs \d+: make room"):
            await box.syncer.sync()
        assert "make room" in box.syncer.trouble
        await box.run(WRITE.format(MIB, "third"))
    await whole(bench, box, workspace, 3)
    assert box.syncer.trouble == ""


async def test_room_that_ends_in_the_middle_of_a_capture_costs_one_sync(
    bench: Bench, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    await box.run(WRITE.format(40 * MIB, "first"))
    monkeypatch.setattr(BlockSync, "_check_space", lambda *_: None)  # as if the room went right after the look
    with only(small, 10 * MIB):
        with pytest.raises(VmmError):
            await box.syncer.sync()
        assert await box.run("echo on") == "on\n"
    assert box.syncer.attached.generation == 0, "nothing half is published"
    assert not list(box.vm.directory.glob("stage*")), "and nothing half is left"
    await whole(bench, box, workspace, 1)


async def test_a_guest_that_writes_to_a_full_host_waits_for_room(bench: Bench, small: Path) -> None:
    workspace = new_id()
    box = await bench.start(bench.attachment(workspace))
    await box.run(WRITE.format(MIB, "first"))
    await box.syncer.sync()
    with only(small, 4 * MIB):
        writing = asyncio.create_task(box.run(WRITE.format(30 * MIB, "second")))
        assert "the host's disk is full" in await box.vm.stall.begins()
        assert not writing.done()
    await writing
    await box.vm.stall.ends()
    await whole(bench, box, workspace, 2)
