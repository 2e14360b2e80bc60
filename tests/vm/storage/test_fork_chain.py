"""A fork of a fork, twenty deep, each with a file of its own: a level has those of the levels that it was forked from,
and none of the levels above."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment
from tests.vm.storage.conftest import ON_S3, Bench

pytestmark = [pytest.mark.vm, ON_S3]

LEVELS = 20
SIZE = 100_000
WRITE = f"cd /root && head -c {SIZE} /dev/urandom > level-{{0:02}} && md5sum level-{{0:02}} > sum-{{0:02}}"
CHECK = "cat sum-* | md5sum -c - | grep -c OK; ls level-* | wc -l"
ROOT = "/upper/root"
"""Where a guest's /root lies on its disk."""


async def chain(bench: Bench, place: Path, in_a_vm: Callable[[int], bool]) -> None:
    """in_a_vm: whether a level's file is written by its own VM, or straight to the next generation of its disk."""
    names = [new_id() for _ in range(LEVELS)]
    for level, name in enumerate(names):
        attachment = bench.attachment(name, **_base(bench, names, level))
        if in_a_vm(level):
            box = await bench.start(attachment)
            await box.run(WRITE.format(level))
            await box.syncer.sync()
            await bench.end(box)
        else:
            await _write_to_the_disk(bench, attachment, level, place)
    for cached in (bench.place / "host" / "cache").glob("*/raw"):
        shutil.rmtree(cached, ignore_errors=True)  # JuiceFS changes it all the time
    for level, name in enumerate(names):
        image = bench.engine.workspaces.of(name).path(bench.rows.generation[name])
        found = place / f"found-{level}"
        found.mkdir()
        await asyncio.to_thread(_debug, image, f"rdump {ROOT} {found}")
        assert _run(["sh", "-c", f"cd {found}/root && {CHECK}"]).split() == [str(level + 1)] * 2
    for level in (LEVELS - 1, LEVELS // 2):
        box = await bench.start(bench.attachment(names[level]))
        assert (await box.run(f"cd /root && {CHECK}")).split() == [str(level + 1)] * 2
        await bench.end(box)


def _base(bench: Bench, names: list[str], level: int) -> dict[str, Any]:
    if level == 0:
        return {}
    return {"base": names[level - 1], "base_generation": bench.rows.generation[names[level - 1]]}


async def _write_to_the_disk(bench: Bench, attachment: Attachment, level: int, place: Path) -> None:
    attached = await bench.engine.workspaces.attach(attachment, vm_id=new_id())
    draft = await attached.begin(attached.size)
    _run(["sh", "-c", WRITE.format(level).replace("/root", str(place))])
    for name in (f"level-{level:02}", f"sum-{level:02}"):
        await asyncio.to_thread(_debug, draft, f"write {place / name} {ROOT}/{name}")
    descriptor = os.open(draft, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)
    number = await attached.publish(draft)
    await attached.committed(number)
    bench.rows.generation[attachment.workspace_id] = number
    await attached.release()


def _debug(image: Path, command: str) -> None:
    """debugfs ends well whatever it was asked: its words are looked at by who needs them."""
    _run(["debugfs", *(["-w"] if command.startswith("write") else []), "-R", command, str(image)])


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_each_level_has_its_own_and_those_before(bench: Bench, tmp_path: Path) -> None:
    await chain(bench, tmp_path, lambda level: level == 0)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_each_level_has_a_vm(bench: Bench, tmp_path: Path) -> None:
    await chain(bench, tmp_path, lambda level: True)
