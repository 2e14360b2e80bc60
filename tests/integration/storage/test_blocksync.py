"""Captures of a disk's changes, with a real QEMU that has no guest."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu.blocksync import GRANULARITY, BlockSync, Capture
from mags.host.vmm.qemu.increment import apply_file
from mags.host.vmm.qemu.qmp import QmpError, QmpTimeout
from tests.integration.storage.idle import IdleQemu, idle_qemu

MIB = 1 << 20
SIZE = 64 * MIB


async def nothing() -> None:
    pass


async def capture(sync: BlockSync) -> Capture:
    return await sync.capture(freeze=nothing, thaw=nothing)


@pytest.fixture
def base(place: Path) -> Path:
    """A base full of ones, so that zeros of the guest are told from holes."""
    path = place / "base.raw"
    path.write_bytes(b"\x01" * SIZE)
    return path


@pytest.fixture
def target(place: Path, base: Path) -> Path:
    path = place / "target.raw"
    path.write_bytes(base.read_bytes())
    return path


@pytest_asyncio.fixture
async def qemu(place: Path, base: Path) -> AsyncIterator[IdleQemu]:
    async with idle_qemu(place, base, SIZE) as running:
        yield running


async def test_only_what_changed_is_copied(qemu: IdleQemu, target: Path) -> None:
    sync = BlockSync(qemu)
    await sync.track()
    assert await sync.dirty() == 0
    await qemu.write(7, MIB, 102_400)
    await qemu.write(0, 4 * MIB, 2 * MIB)  # becomes zero clusters
    await qemu.io(f"discard {8 * MIB} {MIB}")
    got = await capture(sync)
    assert got.freeze_ms >= 0
    applied = got.apply(target, SIZE)
    assert (applied.data, applied.zeros) == (2 * GRANULARITY, 3 * MIB)
    await sync.accept()
    wanted = bytearray(b"\x01" * SIZE)
    wanted[MIB : MIB + 102_400] = b"\x07" * 102_400
    wanted[4 * MIB : 6 * MIB] = bytes(2 * MIB)
    wanted[8 * MIB : 9 * MIB] = bytes(MIB)
    assert target.read_bytes() == wanted
    assert await sync.dirty() == 0
    assert sorted(path.name for path in qemu.directory.iterdir()) == ["base.raw", "disk.qcow2", "qmp", "target.raw"]


async def test_writes_after_the_moment_belong_to_the_next_capture(qemu: IdleQemu, target: Path) -> None:
    sync = BlockSync(qemu)
    await sync.track()
    await qemu.write(2, 0, MIB)

    async def thaw() -> None:
        await qemu.write(3, 0, MIB)
        await qemu.write(4, 10 * MIB, MIB)

    got = await sync.capture(freeze=nothing, thaw=thaw)
    got.apply(target, SIZE)
    data = target.read_bytes()
    assert data[:MIB] == b"\x02" * MIB and data[10 * MIB] == 1
    await sync.accept()
    assert await sync.dirty() == 2 * MIB
    (await capture(sync)).apply(target, SIZE)
    await sync.accept()
    data = target.read_bytes()
    assert data[:MIB] == b"\x03" * MIB and data[10 * MIB] == 4


async def test_reverted_capture_is_part_of_the_next(qemu: IdleQemu, target: Path) -> None:
    sync = BlockSync(qemu)
    await sync.track()
    await qemu.write(2, 0, MIB)
    await capture(sync)
    await qemu.write(3, 2 * MIB, MIB)
    await sync.revert()
    assert await sync.dirty() == 2 * MIB
    (await capture(sync)).apply(target, SIZE)
    await sync.accept()
    data = target.read_bytes()
    assert data[:MIB] == b"\x02" * MIB and data[2 * MIB] == 3


async def test_failure_at_the_moment_thaws_and_loses_nothing(qemu: IdleQemu, target: Path) -> None:
    sync = BlockSync(qemu)
    await sync.track()
    await qemu.write(2, 0, MIB)
    steps: list[str] = []

    async def freeze() -> None:
        steps.append("freeze")
        raise VmmError("the guest does not answer")

    async def thaw() -> None:
        steps.append("thaw")

    with pytest.raises(VmmError, match="does not answer"):
        await sync.capture(freeze=freeze, thaw=thaw)
    assert steps == ["freeze", "thaw"]
    assert await sync.dirty() == MIB
    (await capture(sync)).apply(target, SIZE)
    assert target.read_bytes()[:MIB] == b"\x02" * MIB


async def test_new_host_program_goes_on_after_a_crash_in_a_capture(qemu: IdleQemu, target: Path) -> None:
    sync = BlockSync(qemu)
    await sync.track()
    await qemu.write(2, 0, MIB)
    await capture(sync)  # ... and the program is killed here
    await qemu.write(3, 2 * MIB, MIB)
    successor = BlockSync(await qemu.again())
    await successor.track()
    assert await successor.dirty() == 2 * MIB
    (await capture(successor)).apply(target, SIZE)
    await successor.accept()
    data = target.read_bytes()
    assert data[:MIB] == b"\x02" * MIB and data[2 * MIB] == 3
    third = BlockSync(successor._vm)
    await third.track()
    assert await third.dirty() == 0


async def test_failed_copy_reverts(qemu: IdleQemu, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = BlockSync(qemu)
    await sync.track()
    await qemu.write(2, 0, MIB)
    start = sync._start

    async def broken(freeze: object, thaw: object) -> int:
        frozen = await start(nothing, nothing)
        await qemu.qmp.execute("job-cancel", id="mags-sync")
        return frozen

    monkeypatch.setattr(sync, "_start", broken)
    with pytest.raises((VmmError, QmpError)):
        await capture(sync)
    assert await sync.dirty() == MIB
    monkeypatch.undo()
    await capture(sync)


async def test_full_host_disk_is_said_before_the_guest_notices(qemu: IdleQemu, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = BlockSync(qemu)
    await sync.track()
    real = os.statvfs(qemu.directory)
    values = list(real)
    values[4] = 10  # blocks left
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(values))
    with pytest.raises(VmmError, match="make room"):
        await capture(sync)


async def test_disk_that_grew(qemu: IdleQemu, target: Path) -> None:
    sync = BlockSync(qemu)
    await sync.track()
    await qemu.qmp.execute("block_resize", node_name="work", size=2 * SIZE)
    await qemu.write(5, 2 * SIZE - MIB, MIB)
    (await capture(sync)).apply(target, 2 * SIZE)
    await sync.accept()
    assert target.stat().st_size == 2 * SIZE
    with target.open("rb") as file:
        assert os.pread(file.fileno(), MIB, 2 * SIZE - MIB) == b"\x05" * MIB


async def test_what_a_disk_has_beyond_its_size_is_not_written(qemu: IdleQemu, target: Path) -> None:
    sync = BlockSync(qemu)
    await sync.track()
    await qemu.qmp.execute("block_resize", node_name="work", size=2 * SIZE)
    await qemu.write(6, MIB, MIB)
    (await capture(sync)).apply(target, SIZE)
    await sync.accept()
    await qemu.write(5, 2 * SIZE - MIB, MIB)
    with pytest.raises(VmmError, match="not complete"):
        (await capture(sync)).apply(target, SIZE)
    assert target.stat().st_size == SIZE and target.read_bytes()[MIB : 2 * MIB] == b"\x06" * MIB


async def test_random_writes_and_captures_agree_with_the_disk(qemu: IdleQemu, target: Path) -> None:
    chance = random.Random(4)
    sync = BlockSync(qemu)
    await sync.track()
    wanted = bytearray(b"\x01" * SIZE)
    for _ in range(12):
        for _ in range(6):
            byte, offset = chance.randrange(256), chance.randrange(SIZE - MIB) & ~511
            length = chance.choice((512, 4096, 70_144, MIB))
            await qemu.write(byte, offset, length)
            wanted[offset : offset + length] = bytes([byte]) * length
        got = await capture(sync)
        if chance.random() < 0.3:
            await sync.revert()
            continue
        got.apply(target, SIZE)
        await sync.accept()
    (await capture(sync)).apply(target, SIZE)
    assert target.read_bytes() == wanted


async def test_dead_vms_disk_is_recovered_from_its_overlay(qemu: IdleQemu, target: Path) -> None:
    await qemu.write(9, 3 * MIB, MIB)
    await qemu.io("flush")
    qemu.process.kill()
    await qemu.process.wait()
    apply_file(qemu.directory / "disk.qcow2", target, SIZE)
    assert target.read_bytes()[3 * MIB : 4 * MIB] == b"\x09" * MIB


@pytest.mark.parametrize("command", ["transaction", "blockdev-add", "job-dismiss", "block-dirty-bitmap-remove"])
async def test_lost_answer_of_qemu_loses_no_change(
    qemu: IdleQemu, target: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """QEMU does what it is told, but the answer comes too late: what it has done is not known."""
    sync = BlockSync(qemu)
    await sync.track()
    await qemu.write(2, 0, MIB)
    execute, lost = qemu.qmp.execute, 0

    async def deaf(word: str, **arguments: Any) -> Any:
        nonlocal lost
        answer = await execute(word, **arguments)
        if word == command and not lost:
            lost += 1
            raise QmpTimeout(f"QEMU did not answer {word}.")
        return answer

    monkeypatch.setattr(qemu.qmp, "execute", deaf)
    with pytest.raises(QmpTimeout):
        (await capture(sync)).apply(target, SIZE)
        await sync.accept()
    assert lost == 1
    await qemu.write(3, 2 * MIB, MIB)  # still followed
    (await capture(sync)).apply(target, SIZE)
    await sync.accept()
    data = target.read_bytes()
    assert data[:MIB] == b"\x02" * MIB and data[2 * MIB : 3 * MIB] == b"\x03" * MIB
    assert await sync.dirty() == 0
