"""kill -9 in the middle of syncs, at random moments: every restore is a whole file system with all of the last sync."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress

import pytest

from mags.host.storage.errors import StorageError
from mags.host.vmm.driver import VmmError
from mags.protocol.ids import new_id
from tests.vm.storage.conftest import Bench, Box

pytestmark = pytest.mark.vm

WRITE = """
mkdir -p /root/d/{0}; for i in 1 2 3 4 5 6 7 8 9; do head -c $((i * 5000)) /dev/urandom > /root/d/{0}/$i; done
(cd /root/d && md5sum {0}/* >> sums)
"""
CHECK = "cd /root/d && md5sum -c sums 2>&1 | grep -vc OK; wc -l < sums; dmesg | grep -c 'EXT4-fs error'; true"


async def rounds(bench: Bench, count: int, seed: int) -> None:
    """Each round: new files, a sync that must hold, more files, and a kill somewhere in a second sync."""
    chance = random.Random(seed)
    workspace = new_id()
    for number in range(1, count + 1):
        box = await bench.start(bench.attachment(workspace))
        bad, lines, errors = (await box.run(CHECK if number > 1 else "echo 0 0 0")).split()
        assert (bad, errors) == ("0", "0")
        assert int(lines) >= (number - 1) * 9
        await box.run(WRITE.format(number))
        await synced(box)
        await box.run(f"head -c 3000000 /dev/urandom > /root/noise-{number % 3}")
        syncing = asyncio.create_task(box.syncer.sync())
        await asyncio.sleep(chance.random() * 0.15)
        await kill(bench, box, chance)
        with suppress(Exception):
            await syncing
        await bench.end(box)


async def synced(box: Box) -> None:
    """Sync, with the patience of the regular syncs."""
    async with asyncio.timeout(120):
        while True:
            try:
                await box.syncer.sync()
                return
            except (StorageError, VmmError):
                await asyncio.sleep(0.2)


async def kill(bench: Bench, box: Box, chance: random.Random) -> None:
    victims = sorted(bench.engine.mount._processes())
    match chance.choice(("qemu", "worker", "volume")):
        case "qemu":
            await box.vm.process.kill()
            return
        case "worker":
            victims = victims[-1:]
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while True:
            with suppress(OSError, StorageError):
                await bench.engine.workspaces.manifests()
                return
            await asyncio.sleep(0.1)


async def test_a_few_kills(bench: Bench) -> None:
    await rounds(bench, 4, seed=7)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_fifty_kills(bench: Bench) -> None:
    await rounds(bench, 50, seed=1)
