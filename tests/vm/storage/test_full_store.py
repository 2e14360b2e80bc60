"""The disk is full that a volume's metadata, blocks and cache are on: syncs say so and are made up for, what was synced
stays whole, and so does what the guest goes on writing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mags.host.storage.errors import StorageUnavailable
from mags.protocol.ids import new_id
from tests.vm.storage.conftest import Bench
from tests.vm.storage.test_full_host import CHECK, MIB, WRITE, whole

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

JFS = "timeout 10 sh -c 'head -c 2000000 /dev/urandom > /jfs/new && sync /jfs/new' 2>&1; cd /jfs && md5sum -c sum"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A small disk, where the volume is."""
    disk = tmp_path / "volume"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m,mode=755", "none", disk], check=True, timeout=30)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk / "host" / "mnt"], check=False, capture_output=True, timeout=60)
        subprocess.run(["umount", "-l", disk], check=True, timeout=30)


@pytest.fixture
async def roomy(bench: Bench, tmp_path: Path) -> AsyncIterator[Bench]:
    """The VMs' own files are elsewhere: they go on."""
    bench.place = tmp_path / "vms"
    bench.place.mkdir(mode=0o755)
    await bench.prepare_network()
    yield bench


@contextmanager
def filled(disk: Path, left: int) -> Iterator[None]:
    """Inside, the disk has at most so many bytes left, and what JuiceFS gives up of its cache."""
    filler = disk / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], check=False, capture_output=True, timeout=60)
    os.truncate(filler, filler.stat().st_size - left)
    try:
        yield
    finally:
        filler.unlink()


@pytest.mark.parametrize("left", [0, 6 * MIB], ids=["nothing", "a block"])
async def test_volume_without_room(roomy: Bench, place: Path, left: int) -> None:
    bench, workspace = roomy, new_id()
    box = await bench.start(bench.attachment(workspace), jfs=True)
    await box.run(WRITE.format(MIB, "first"))
    await box.run("head -c 300000 /dev/urandom > /jfs/f && cd /jfs && md5sum f > sum && sync f sum")
    await box.syncer.sync()
    before = box.syncer.attached.generation
    with filled(place, left):
        await box.run(WRITE.format(40 * MIB, "second"))
        with pytest.raises(StorageUnavailable):
            await box.syncer.sync()
        assert box.syncer.attached.generation == before
        assert "f: OK" in (await box.attempt(JFS))[1]
        await box.run(WRITE.format(MIB, "third"))
        assert (await box.run(CHECK)).split() == ["0", "0", "3"]
    await box.run("rm -f /jfs/new; cp /jfs/f /jfs/g; sync /jfs/g; cmp /jfs/f /jfs/g")
    await whole(bench, box, workspace, 3)
