"""Workspaces with their blocks in S3 (SeaweedFS on this machine): starts, forks, starts on a new host, syncs, /jfs."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bench import floor
from bench.server import Api, milliseconds, server
from bench.table import Row, row
from mags.host.storage.s3 import S3
from mags.host.storage.seaweedfs import SeaweedFS
from tests.kit.installation import Installation

PARTS = ("starts", "forks", "elsewhere", "syncs", "jfs")
STARTS, PARKED = 6, 12
ALIKE = 1.1
"""A parked VM is to be had as soon as one of the pool."""
SYNCS = 4
SMALL_MB, BIG_MB = 10, 1000
FILES = 2000
PIECE_MB = 10
JFS_MB, JFS_FILES = 50, 200
DEADLINE_S = 120.0
QUIET_TICKS = 4
FILL = (
    "set -e; mkdir -p /p; mount -t tmpfs none /p; head -c {piece} /dev/urandom > /p/x; "
    "i=0; while [ $i -lt {count} ]; do cat /p/x; i=$((i+1)); done > /root/data; umount /p; "
    "test $(stat -c %s /root/data) -eq $(({piece} * {count}))"
)
MEGABYTE = "head -c 1000000 /dev/urandom > /root/changed-{number}"
MANY = "mkdir -p /root/m{number}; i=0; while [ $i -lt {files} ]; do echo $i > /root/m{number}/$i; i=$((i+1)); done"
"""A small file takes a block of 4 KiB: 2,000 are 8 MB."""


async def measure(parts: Collection[str] = PARTS) -> list[Row]:
    rows: list[Row] = []
    if "starts" in parts:
        _say("the floor: the guest channel")
        _, baseline = await floor.measure()
        rows += await asyncio.to_thread(_parked, baseline)
    return rows + await asyncio.to_thread(_measure, parts)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Store:
    """The bucket of an installation's SeaweedFS, and what its JuiceFS asks of it."""

    def __init__(self, mags: Installation) -> None:
        self._bucket = SeaweedFS(mags.data / "seaweedfs").bucket("mags")
        self._mags, self._storage = mags, mags.data / "host" / "storage"
        self._runner = asyncio.Runner()
        self._client = S3(self._bucket)

    def blocks(self) -> dict[str, int]:
        """Those of the volume: name -> bytes."""

        async def listed() -> dict[str, int]:
            return {key: size async for key, size in self._client.objects("mags/chunks/")}

        return self._runner.run(listed())

    def added(self, before: dict[str, int]) -> int:
        """Bytes of the blocks that are new since then."""
        return sum(size for name, size in self.blocks().items() if name not in before)

    def fetched(self) -> float:
        """Bytes that this host has had from the bucket since it was mounted."""
        text = (self._storage / "mnt" / ".stats").read_text()
        if "juicefs_object_request_data_bytes" not in text:
            raise RuntimeError("JuiceFS does not say what it has had from the bucket")
        values = [line.rpartition(" ") for line in text.splitlines()]
        return sum(float(value) for name, _, value in values if "request_data_bytes" in name and "GET" in name)

    def settle(self) -> None:
        """Wait until JuiceFS and the object store are idle: a write is followed by a few seconds of tidying up."""
        deadline = time.monotonic() + DEADLINE_S
        spent = self._ticks()
        while time.monotonic() < deadline:
            time.sleep(1)
            before, spent = spent, self._ticks()
            if spent - before <= QUIET_TICKS:
                return
        raise RuntimeError("the store does not come to rest")

    def _ticks(self) -> int:
        """The processor time of both, in hundredths of a second."""
        found = self._mags.programs()
        pids = [pid for name in ("juicefs", "weed") for pid in found.get(name, [])]
        spent = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]
        return sum(int(user) + int(system) for user, system in spent)

    def forget(self) -> None:
        """As on a host that has read nothing yet: neither JuiceFS nor the kernel has a block of it."""
        os.sync()
        for path in (self._storage / "cache").glob("*/raw"):
            shutil.rmtree(path)
        Path("/proc/sys/vm/drop_caches").write_text("3")

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


def _measure(parts: Collection[str]) -> list[Row]:
    # Syncs happen when they are measured and at stops only.
    settings = {"MAGS_HOST_POOL_TARGET": "0", "MAGS_HOST_STORAGE_SYNC_INTERVAL_S": "3600", "MAGS_UP_S3": "seaweedfs"}
    with server(**settings) as mags:
        api, store = Api(mags), Store(mags)
        _say(f"workspaces of {SMALL_MB} MB and of {BIG_MB} MB")
        for name, size in (("small", SMALL_MB), ("big", BIG_MB)):
            script = FILL.format(piece=PIECE_MB << 20, count=size // PIECE_MB)
            _run(api, script, workspace_id=name, disk_gb=3)
            _stop(api, name)
        rows = _starts(api, store) if "starts" in parts else []
        rows += _forks(api, store) if "forks" in parts else []
        rows += _elsewhere(api, store) if "elsewhere" in parts else []
        rows += _syncs(api, store) if "syncs" in parts else []
        rows += _jfs(api, store) if "jfs" in parts else []
        store.close()
        return rows


def _parked(baseline: Row) -> list[Row]:
    """A VM of the pool, and one that is parked with its workspace: from the request to the recorded end."""
    _say("VMs of the pool, and parked ones")
    pool, parked = [], []
    with server(MAGS_HOST_POOL_TARGET="2", MAGS_HOST_STORAGE_SYNC_INTERVAL_S="3600", MAGS_UP_S3="seaweedfs") as mags:
        api = Api(mags)
        _run(api, workspace_id="parked")
        for _ in range(PARKED):
            api.settle(2)
            taken, kind = _run(api)
            if kind == "pool":
                pool.append(taken)
            api.settle(2)
            taken, kind = _run(api, workspace_id="parked")
            assert kind in ("parked", "warm"), kind
            parked.append(taken)
    first = row("a VM of the pool, with the store beside it", "ms", pool, baseline=baseline)
    return [first, row("run on a parked workspace", "ms", parked, goal=ALIKE * first.median, baseline=first)]


def _run(api: Api, script: str = "echo hi", **wish: object) -> tuple[float, str]:
    """Milliseconds from the request to the recorded end, and how the VM was had."""
    begin = time.perf_counter()
    request_id = api.run(script, **wish)
    api.frames(request_id)
    status = api.until_recorded(request_id)
    taken = milliseconds(begin)
    assert status["status"] == "completed", status
    return taken, str(status["start_kind"])


def _stop(api: Api, workspace: str) -> None:
    """Its VM is gone, and everything is synced."""
    api.call("POST", f"/mags-jobs/{workspace}/stop")


def _start(api: Api, workspace: str) -> float:
    """Milliseconds until a command has ended in a VM that was made for the workspace; it is stopped again."""
    taken, kind = _run(api, workspace_id=workspace)
    assert kind not in ("parked", "warm"), kind
    _stop(api, workspace)
    return taken


def _starts(api: Api, store: Store) -> list[Row]:
    _say("starts")
    cold: dict[str, list[float]] = {"small": [], "big": []}
    for _ in range(STARTS):
        for name, samples in cold.items():
            store.settle()
            samples.append(_start(api, name))
    small = row(f"run on a workspace of {SMALL_MB} MB, not parked", "ms", cold["small"], goal=700)
    big = row(f"run on a workspace of {BIG_MB} MB, not parked", "ms", cold["big"], goal=700, baseline=small)
    at_once = [_start(api, "big") for _ in range(STARTS)]
    return [
        small,
        big,
        row("  the large one to the small one", "x", [big.median / small.median], goal=1.2),
        row("  the large one as soon as it was stopped, while JuiceFS tidies it up", "ms", at_once),
    ]


def _forks(api: Api, store: Store) -> list[Row]:
    _say("forks")
    plain: list[float] = []
    forks: dict[str, list[float]] = {"small": [], "big": []}
    for number in range(STARTS):
        store.settle()
        plain.append(_run(api, ephemeral=True)[0])
        for name, samples in forks.items():
            fork = f"fork-{name}-{number}"
            store.settle()
            samples.append(_run(api, workspace_id=fork, base_workspace_id=name)[0])
            _stop(api, fork)
            api.call("DELETE", f"/mags-workspaces/{fork}")
    base = statistics.median(plain)
    small, big = ([taken - base for taken in forks[name]] for name in ("small", "big"))
    return [
        row("plain start, no pool", "ms", plain),
        row(f"fork of {SMALL_MB} MB, beyond a plain start", "ms", small, goal=300),
        row(f"fork of {BIG_MB} MB, beyond a plain start", "ms", big, goal=300),
        row("  runs on forks, the large to the small", "x",
            [statistics.median(forks["big"]) / statistics.median(forks["small"])], goal=1.2),
    ]  # fmt: skip


def _elsewhere(api: Api, store: Store) -> list[Row]:
    _say("first starts on a host that has read nothing")
    rows = []
    for name, size in (("small", SMALL_MB), ("big", BIG_MB)):
        times, bytes_ = [], []
        for _ in range(STARTS):
            store.settle()
            store.forget()
            before = store.fetched()
            times.append(_start(api, name))
            bytes_.append((store.fetched() - before) / 1e6)
        rows.append(row(f"run on a workspace of {size} MB, no block of it cached", "ms", times))
        rows.append(row("  fetched from the bucket for it", "MB", bytes_))
    return rows


def _sandbox(api: Api, workspace: str) -> str:
    request_id = api.run("true", workspace_id=workspace, persistent=True, no_sleep=True)
    api.frames(request_id)
    return request_id


def _exec(api: Api, job: str, command: str) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    answer = api.call("POST", f"/mags-jobs/{job}/exec", {"command": command, "timeout": DEADLINE_S})
    assert answer["exit_code"] == 0, answer
    return milliseconds(begin)


def _sync(api: Api, job: str) -> tuple[float, dict[str, Any]]:
    begin = time.perf_counter()
    answer: dict[str, Any] = api.call("POST", f"/mags-jobs/{job}/sync")
    return milliseconds(begin), answer


def _syncs(api: Api, store: Store) -> list[Row]:
    _say("syncs of the large workspace")
    job = _sandbox(api, "big")
    _sync(api, job)
    nothing, megabyte, many = [], [], []
    uploads: list[float] = []
    frozen: list[float] = []
    for number in range(SYNCS):
        nothing.append(_sync(api, job)[0])
        _exec(api, job, MEGABYTE.format(number=number))
        before = store.blocks()
        taken, answer = _sync(api, job)
        megabyte.append(taken)
        frozen.append(answer["freeze_ms"])
        uploads.append(store.added(before) / 1e6)
        _exec(api, job, MANY.format(number=number, files=FILES))
        taken, answer = _sync(api, job)
        many.append(taken)
        frozen.append(answer["freeze_ms"])
    _stop(api, "big")
    return [
        row("sync, nothing changed", "ms", nothing, goal=50),
        row("sync, 1 MB changed", "ms", megabyte, goal=600),
        row(f"sync, {FILES} small files changed", "ms", many, goal=2000),
        row("the guest frozen in a sync", "ms", frozen, goal=100),
        row(f"new in the bucket for 1 MB changed in {BIG_MB} MB", "MB", uploads, goal=3),
    ]


def _jfs(api: Api, store: Store) -> list[Row]:
    _say("/jfs")
    job = _sandbox(api, "small")
    visible, large, files = [], [], []
    for number in range(SYNCS):
        before = store.blocks()
        begin = time.perf_counter()
        _exec(api, job, f"head -c 500000 /dev/urandom > /jfs/{number}")
        while store.added(before) < 500_000:
            assert milliseconds(begin) < DEADLINE_S * 1000
            time.sleep(0.005)
        visible.append(milliseconds(begin) / 1000)
    # What can't be compressed, from memory: making it takes the guest longer than writing it.
    _exec(api, job, f"set -e; mkdir -p /m; mount -t tmpfs none /m; head -c {JFS_MB << 20} /dev/urandom > /m/x")
    for number in range(SYNCS):
        before = store.blocks()
        large.append(JFS_MB * 1000 / _exec(api, job, f"dd if=/m/x of=/jfs/large-{number} bs=1M 2>/dev/null"))
        assert store.added(before) >= JFS_MB << 20, "what was closed is in the bucket"
        make = (
            f"mkdir /jfs/d{number}; i=0; while [ $i -lt {JFS_FILES} ]; do echo $i > /jfs/d{number}/$i; i=$((i+1)); done"
        )
        files.append(JFS_FILES * 1000 / _exec(api, job, make))
    _stop(api, "small")
    return [
        row("/jfs: 500 kB written, closed and listed in the bucket", "s", visible, goal=2),
        row(f"/jfs: {JFS_MB} MB that can't be compressed, written and closed", "MB/s", large),
        row("/jfs: small files made", "/s", files),
    ]
