"""kill -9 of each program in turn, in the middle of a sync, at random moments: every restore is a whole file system
with every file of the last sync."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from mags.protocol.errors import Problem
from tests.vm.storage.station import Station, station

pytestmark = pytest.mark.vm

WRITE = """
mkdir -p /root/d/{0}; for i in 1 2 3 4 5 6 7 8 9; do head -c $((i * 5000)) /dev/urandom > /root/d/{0}/$i; done
(cd /root/d && md5sum {0}/* >> sums)
"""
CHECK = (
    "cd /root/d && md5sum -c sums 2>&1 | grep -vc OK; wc -l < sums; dmesg | grep -ciE 'ext4-fs (error|warning)'; true"
)


async def rounds(at: Station, place: Path, count: int, seed: int) -> None:
    """Each round: new files, a sync that must hold, more files, and a kill somewhere in a second sync."""
    chance = random.Random(seed)
    victims = ["worker", "qemu", "host", "volume", *(["store"] if at.store is not None else [])]
    for number in range(1, count + 1):
        vm_id = await at.start()
        if number > 1:
            bad, lines, errors = (await at.run(vm_id, CHECK)).split()
            assert (bad, errors) == ("0", "0") and int(lines) >= (number - 1) * 9, (bad, lines, errors)
        await at.run(vm_id, WRITE.format(number))
        synced = await at.synced(vm_id)
        check_file_system(at.image(synced.generation))
        await at.run(vm_id, f"head -c 3000000 /dev/urandom > /root/noise-{number % 3}")
        syncing = asyncio.create_task(at.sync(vm_id))
        await asyncio.sleep(chance.random() * 0.3)
        await kill(at, vm_id, victims[number % len(victims)])
        syncing.cancel()
        with suppress(Problem, asyncio.CancelledError):
            await syncing
        await at.stop(vm_id)
        # What a VM leaves that died is as after a power cut: its journal is to be replayed first.
        copy = place / "copy"
        subprocess.run(["cp", "--sparse=always", at.image(at.generation), copy], check=True, timeout=120)
        copy.chmod(0o600)
        subprocess.run(["e2fsck", "-p", copy], check=False, capture_output=True, timeout=120)
        check_file_system(copy)
        copy.unlink()


def check_file_system(image: Path) -> None:
    done = subprocess.run(["e2fsck", "-fn", image], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


async def kill(at: Station, vm_id: str, victim: str) -> None:
    match victim:
        case "qemu":
            os.kill(at.host.hypervisor(vm_id), signal.SIGKILL)
        case "host":
            at.host.kill()
            at.host.start()
            await at.caller.ready()
        case "store":
            assert at.store is not None
            if at.store.pid is not None:
                os.kill(at.store.pid, signal.SIGKILL)  # its supervisor starts it again
        case _:
            at.kill_volume(whole=victim == "volume")


@pytest.mark.parametrize("s3", [pytest.param(True, id="s3")])
async def test_a_few_kills(place: Path, image_cache: Path, s3: bool) -> None:
    async with station(place, image_cache, s3=s3) as at:
        await rounds(at, place, 4, seed=7)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("s3", [pytest.param(True, id="s3"), pytest.param(False, id="local")])
async def test_fifty_kills(place: Path, image_cache: Path, s3: bool, seed: int) -> None:
    """Twenty-five for each of two seeds."""
    async with station(place, image_cache, s3=s3) as at:
        await rounds(at, place, 25, seed=seed)
