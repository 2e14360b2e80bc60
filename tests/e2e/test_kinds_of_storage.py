"""`mags up --s3 seaweedfs`: a deleted workspace frees its blocks; a data directory keeps its kind of storage."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator

import pytest

from mags.host.storage.s3 import S3
from mags.host.storage.seaweedfs import SeaweedFS
from tests.kit.installation import MAGS, Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]

COLLECT_S = 1
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def mags(base_image: None) -> Iterator[Installation]:
    environment = {"MAGS_HOST_POOL_TARGET": "0", "MAGS_HOST_STORAGE_COLLECT_INTERVAL_S": str(COLLECT_S)}
    with Installation(environment=environment, flags=("--s3", "seaweedfs")) as installation:
        yield installation


def blocks(mags: Installation) -> set[str]:
    """The names of the volume's blocks in the bucket."""
    return asyncio.run(_blocks(SeaweedFS(mags.data / "seaweedfs")))


async def _blocks(store: SeaweedFS) -> set[str]:
    client = S3(store.bucket("mags"))
    try:
        return {key async for key in client.keys("mags/chunks/")}
    finally:
        await client.aclose()


def settled(mags: Installation) -> set[str]:
    """The same, when collections find nothing more to do: they also join what is fragmented, under new names."""
    seen, since = blocks(mags), time.monotonic()
    deadline = since + DEADLINE_S
    while time.monotonic() - since < 3 * COLLECT_S:
        assert time.monotonic() < deadline
        time.sleep(0.5)
        if (now := blocks(mags)) != seen:
            seen, since = now, time.monotonic()
    return seen


def test_a_deleted_workspace_frees_its_blocks(mags: Installation) -> None:
    """By the host's own collection; the blocks of a fork that lives stay."""
    mags.out("run", "-w", "stays", "head -c 3000000 /dev/urandom > /root/f; md5sum < /root/f > /root/sum")
    mags.cli("stop", "stays")
    before = settled(mags)
    script = "head -c 20000000 /dev/urandom > /root/big; head -c 9000000 /dev/urandom > /jfs/big"
    mags.out("run", "-w", "goes", script)
    mags.cli("sync", "goes")
    mags.out("run", "-w", "goes", "head -c 9000000 /dev/urandom > /root/big")
    mags.cli("stop", "goes")
    mags.out("run", "-w", "fork", "--base", "goes", "md5sum < /root/big > /root/sum; md5sum < /jfs/big > /root/sums")
    mags.cli("stop", "fork")
    assert len(blocks(mags) - before) >= 5
    mags.cli("workspace", "delete", "--yes", "goes")
    time.sleep(COLLECT_S * 2)  # at least one collection, with the fork there
    check = "md5sum < /root/big | cmp - /root/sum && md5sum < /jfs/big | cmp - /root/sums && echo whole"
    assert mags.out("run", "-w", "fork", check) == "whole\n"
    mags.cli("stop", "fork")
    mags.cli("workspace", "delete", "--yes", "fork")
    deadline = time.monotonic() + DEADLINE_S
    while (now := blocks(mags)) != before:
        assert time.monotonic() < deadline, f"left: {sorted(now - before)}, lost: {sorted(before - now)}"
        time.sleep(0.5)
    assert mags.out("run", "-w", "stays", "md5sum < /root/f | cmp - /root/sum && echo whole") == "whole\n"
    mags.cli("stop", "stays")


def test_the_storage_of_a_data_directory_is_chosen_once(mags: Installation) -> None:
    mags.out("run", "-w", "kept", "echo disk > /root/f; echo straight > /jfs/f")
    mags.down()
    mags.flags = ()
    for words, told in ((("--s3", "local"), {}), ((), {"MAGS_HOST_STORAGE_KIND": "local"})):
        refused = _up(mags, words, told)
        assert "in SeaweedFS (--s3 seaweedfs)" in refused and "Nothing was changed." in refused
    mags.start()
    assert mags.out("run", "-w", "kept", "cat /root/f /jfs/f") == "disk\nstraight\n"
    assert mags.json("pool")["hosts"][0]["storage"] == "ok"
    mags.cli("stop", "kept")


def _up(mags: Installation, words: tuple[str, ...], told: dict[str, str]) -> str:
    """What a `mags up` says that does not come up."""
    done = subprocess.run(
        [MAGS, "up", "--api", mags.api, "--apps", mags.apps, "--ssh", mags.ssh, *words],
        env={**mags.environment, **told}, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    return " ".join(done.stderr.decode().split())
