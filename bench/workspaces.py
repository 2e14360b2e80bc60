"""Workspaces: starts from the store, forks, syncs, /jfs, and what is uploaded for a change."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench.server import Api, milliseconds, server
from bench.table import Row, row
from tests.kit.installation import Installation

STARTS = 6
SYNCS = 4
SMALL_MB, BIG_MB = 10, 1000
FILES = 2000
PIECE_MB = 10
JFS_MB, JFS_FILES = 50, 200
DEADLINE_S = 120.0
FILL = (
    "mkdir -p /p; mount -t tmpfs none /p; head -c {piece}M /dev/urandom > /p/x; "
    "i=0; while [ $i -lt {count} ]; do cat /p/x; i=$((i+1)); done > /root/data; umount /p"
)
MEGABYTE = "head -c 1000000 /dev/urandom > /root/changed-{number}"
MANY = "mkdir -p /root/m{number}; i=0; while [ $i -lt {files} ]; do echo $i > /root/m{number}/$i; i=$((i+1)); done"
"""A small file takes a block of 4 KiB: 2,000 are 8 MB."""


async def measure() -> list[Row]:
    return await asyncio.to_thread(_measure)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _measure() -> list[Row]:
    # Syncs happen when they are measured and at stops only.
    with server(MAGS_HOST_POOL_TARGET="0", MAGS_HOST_STORAGE_SYNC_INTERVAL_S="3600") as mags:
        api = Api(mags)
        _say(f"workspaces of {SMALL_MB} MB and of {BIG_MB} MB")
        for name, size in (("small", SMALL_MB), ("big", BIG_MB)):
            script = FILL.format(piece=PIECE_MB, count=size // PIECE_MB)
            _run(api, script, workspace_id=name, disk_gb=3)
            _stop(api, name)
        return [*_starts(api), *_syncs(mags, api), *_jfs(mags, api)]


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


def _starts(api: Api) -> list[Row]:
    _say("starts")
    plain, fork = [], []
    parked: list[float] = []
    cold: dict[str, list[float]] = {"small": [], "big": []}
    for number in range(STARTS):
        plain.append(_run(api, ephemeral=True)[0])
        for name, samples in cold.items():
            taken, kind = _run(api, workspace_id=name)
            assert kind not in ("parked", "warm"), kind
            samples.append(taken)
            time.sleep(0.3)
            taken, kind = _run(api, workspace_id=name)
            assert kind in ("parked", "warm"), kind
            parked.append(taken)
            _stop(api, name)
        taken, _ = _run(api, workspace_id=f"fork-{number}", base_workspace_id="big")
        fork.append(taken)
        _stop(api, f"fork-{number}")
        api.call("DELETE", f"/mags-workspaces/fork-{number}")
        time.sleep(0.3)
    base = statistics.median(plain)
    return [
        row("plain start, no pool", "ms", plain),
        row(f"workspace of {SMALL_MB} MB, not parked", "ms", cold["small"], goal=700),
        row(f"workspace of {BIG_MB} MB, not parked", "ms", cold["big"], goal=700),
        row("the large one to the small one", "x", [statistics.median(cold["big"]) / statistics.median(cold["small"])],
            goal=1.2),
        row("parked workspace", "ms", parked, goal=100),
        row(f"fork of {BIG_MB} MB, beyond a plain start", "ms", [taken - base for taken in fork], goal=300),
    ]  # fmt: skip


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


def _syncs(mags: Installation, api: Api) -> list[Row]:
    _say("syncs of the large workspace")
    job = _sandbox(api, "big")
    _sync(api, job)
    nothing, megabyte, many = [], [], []
    uploads: list[float] = []
    frozen: list[float] = []
    for number in range(SYNCS):
        nothing.append(_sync(api, job)[0])
        _exec(api, job, MEGABYTE.format(number=number))
        before = _blocks(mags)
        taken, answer = _sync(api, job)
        megabyte.append(taken)
        frozen.append(answer["freeze_ms"])
        uploads.append(sum(size for name, size in _blocks(mags).items() if name not in before) / 1e6)
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
        row(f"uploaded for 1 MB changed in {BIG_MB} MB", "MB", uploads, goal=3),
    ]


def _jfs(mags: Installation, api: Api) -> list[Row]:
    _say("/jfs")
    job = _sandbox(api, "small")
    visible = []
    for number in range(SYNCS):
        before = _blocks(mags)
        begin = time.perf_counter()
        _exec(api, job, f"head -c 500000 /dev/urandom > /jfs/{number}")
        while sum(size for name, size in _blocks(mags).items() if name not in before) < 500_000:
            assert milliseconds(begin) < DEADLINE_S * 1000
            time.sleep(0.005)
        visible.append(milliseconds(begin) / 1000)
    taken = _exec(api, job, f"dd if=/dev/zero of=/jfs/large bs=1M count={JFS_MB} 2>/dev/null")
    script = f"mkdir /jfs/d; i=0; while [ $i -lt {JFS_FILES} ]; do echo $i > /jfs/d/$i; i=$((i+1)); done"
    files = _exec(api, job, script)
    _stop(api, "small")
    return [
        row("/jfs: written, closed and in the store", "s", visible, goal=2),
        row("/jfs: written", "MB/s", [JFS_MB * 1000 / taken]),
        row("/jfs: small files made", "/s", [JFS_FILES * 1000 / files]),
    ]


def _blocks(mags: Installation) -> dict[str, int]:
    """The objects of the store: name -> bytes."""
    found = {}
    for folder, _, names in os.walk(mags.data / "host" / "storage" / "blocks"):
        for name in names:
            try:
                found[name] = (Path(folder) / name).stat().st_size
            except FileNotFoundError:
                continue
    return found
