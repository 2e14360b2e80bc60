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
QUIET_S = 8.0
SLACK = 5 << 20
"""Bytes: a block (4 MiB) that JuiceFS joins from those of what stays, on a busy machine after we have looked; the small
ones that it is made of go with the generation that they belong to. What was deleted has six times as much."""


@pytest.fixture(scope="module")
def mags(base_image: None) -> Iterator[Installation]:
    environment = {"MAGS_HOST_POOL_TARGET": "0", "MAGS_HOST_STORAGE_COLLECT_INTERVAL_S": str(COLLECT_S)}
    with Installation(environment=environment, flags=("--s3", "seaweedfs")) as installation:
        yield installation


def blocks(mags: Installation) -> dict[str, int]:
    """The volume's blocks in the bucket, and their sizes in bytes."""
    return asyncio.run(_blocks(SeaweedFS(mags.data / "seaweedfs")))


async def _blocks(store: SeaweedFS) -> dict[str, int]:
    client = S3(store.bucket("mags"))
    try:
        return {key: size async for key, size in client.objects("mags/chunks/")}
    finally:
        await client.aclose()


def settled(mags: Installation) -> dict[str, int]:
    """The blocks when they have not changed for a while: what is fragmented is joined, with the gaps between."""
    deadline, since = time.monotonic() + DEADLINE_S, time.monotonic()
    found = blocks(mags)
    while time.monotonic() < since + QUIET_S:
        assert time.monotonic() < deadline, "the blocks change for ever"
        time.sleep(0.5)
        if (now := blocks(mags)) != found:
            found, since = now, time.monotonic()
    return found


def test_a_deleted_workspace_frees_its_blocks(mags: Installation) -> None:
    """By the host's own collection, which also joins what is fragmented, under new names; what a fork that lives shares
    with it stays."""
    mags.out("run", "-w", "stays", "head -c 3000000 /dev/urandom > /root/f; md5sum < /root/f > /root/sum")
    mags.cli("stop", "stays")
    before = settled(mags)
    script = "head -c 20000000 /dev/urandom > /root/big; head -c 9000000 /dev/urandom > /jfs/big"
    mags.out("run", "-w", "goes", script)
    mags.cli("stop", "goes")
    mags.out("run", "-w", "fork", "--base", "goes", "md5sum < /root/big > /root/sum; md5sum < /jfs/big > /root/sums")
    mags.cli("stop", "fork")
    full = blocks(mags)
    assert len(full) > len(before) and sum(full.values()) > sum(before.values()) + 29_000_000
    mags.cli("workspace", "delete", "--yes", "goes")
    time.sleep(COLLECT_S * 2)  # at least one collection, with the fork there
    check = "md5sum < /root/big | cmp - /root/sum && md5sum < /jfs/big | cmp - /root/sums && echo whole"
    assert mags.out("run", "-w", "fork", check) == "whole\n"
    mags.cli("stop", "fork")
    mags.cli("workspace", "delete", "--yes", "fork")
    deadline = time.monotonic() + DEADLINE_S
    while sum((now := blocks(mags)).values()) > sum(before.values()) + SLACK:
        assert time.monotonic() < deadline, f"{len(before)} blocks before, {len(full)} with it, {len(now)} without"
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
