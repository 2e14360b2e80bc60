"""Sandboxes that stay: falling asleep, waking, what they cost meanwhile; the ways to them (bench.ssh, bench.edge)."""

from __future__ import annotations

import asyncio
import http.client
import os
import statistics
import sys
import time
from pathlib import Path

from bench import edge, ssh
from bench.server import Api, milliseconds, rss_mb, server
from bench.table import Row, row
from tests.kit.installation import Installation

RUNS = 20
CYCLES = 100
SLEEPERS = 200
FILL = "mkdir -p /f; mount -t tmpfs none /f; head -c {size}M /dev/urandom > /f/x"
PAGE = r"""
printf '#!/bin/sh\nread line\nprintf "HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\npage"' > /root/answer
chmod +x /root/answer
exec nc -lk -p 8080 -e /root/answer
"""
WAITING = {"persistent": True, "idle_timeout": 3600}


async def measure() -> list[Row]:
    rows = await asyncio.to_thread(_nights)
    return rows + await edge.measure()


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _nights() -> list[Row]:
    with server(MAGS_HOST_POOL_TARGET="0") as mags:
        api = Api(mags)
        return [*_used(api), *_pages(mags, api), *_by_ssh(mags), *_cycles(mags, api), *_sleepers(mags, api)]


def _sandbox(api: Api, name: str, script: str = "true", **wish: object) -> str:
    """A persistent VM whose script has run."""
    request_id = api.run(script, name=name, **WAITING, **wish)
    api.frames(request_id)
    return request_id


def _exec(api: Api, job: str, command: str) -> str:
    answer = api.call("POST", f"/mags-jobs/{job}/exec", {"command": command, "timeout": 120})
    assert answer["exit_code"] == 0, answer
    return str(answer["stdout"])


def _timed(api: Api, job: str, verb: str) -> float:
    begin = time.perf_counter()
    api.call("POST", f"/mags-jobs/{job}/{verb}")
    return milliseconds(begin)


def _used(api: Api) -> list[Row]:
    _say("sleep and wake, 256 MB in use")
    job = _sandbox(api, "full", FILL.format(size=200), memory_mb=512)
    falling, rising, first = [], [], []
    for _ in range(RUNS):
        falling.append(_timed(api, job, "sleep"))
        rising.append(_timed(api, job, "wake"))
        api.call("POST", f"/mags-jobs/{job}/sleep")
        begin = time.perf_counter()
        _exec(api, job, "true")
        first.append(milliseconds(begin))
    api.call("POST", f"/mags-jobs/{job}/stop")
    return [
        row("sleep, 256 MB used", "ms", falling, goal=150),
        row("wake to running", "ms", rising, goal=150),
        row("wake to first exec answered", "ms", first, goal=600),
    ]


def _pages(mags: Installation, api: Api) -> list[Row]:
    _say("first pages")
    request_id = api.run(PAGE, name="page", **WAITING)
    _exec(api, request_id, "until nc -z 127.0.0.1 8080; do sleep 0.1; done")
    site = str(api.call("POST", f"/mags-jobs/{request_id}/access", {"port": 8080})["url"]).split("/")[2]

    def get() -> float:
        host, _, port = mags.apps.rpartition(":")
        begin = time.perf_counter()
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        connection.request("GET", "/", headers={"Host": site})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"page"), answer.status
        connection.close()
        return milliseconds(begin)

    get()
    asleep = []
    for _ in range(RUNS):
        api.call("POST", f"/mags-jobs/{request_id}/sleep")
        asleep.append(get())
    awake = [get() for _ in range(RUNS)]
    api.call("POST", f"/mags-jobs/{request_id}/stop")
    return [
        row("first page of a sleeping VM, by its URL", "ms", asleep, goal=800),
        row("page of a VM that is awake (a process for each), by its URL", "ms", awake),
    ]


def _by_ssh(mags: Installation) -> list[Row]:
    _say("by SSH")
    api = Api(mags)
    job = _sandbox(api, "ssh", memory_mb=512)
    _exec(api, job, "true")
    rows = asyncio.run(ssh.measure(api.call("POST", f"/mags-jobs/{job}/access", {"port": 22})))
    Api(mags).call("POST", f"/mags-jobs/{job}/stop")  # the other connection has been idle for too long
    return rows


def _cycles(mags: Installation, api: Api) -> list[Row]:
    _say(f"{CYCLES} nights of one VM")
    job = _sandbox(api, "cycles")
    (host,) = mags.programs()["host"]
    times, sizes, memories, files = [], [], [], []
    for number in range(CYCLES):
        _exec(api, job, f"echo {number} >> /root/nights")
        times.append(_timed(api, job, "sleep"))
        sizes.append(_disk_mb(mags))
        memories.append(rss_mb(host))
        files.append(float(len(os.listdir(f"/proc/{host}/fd"))))  # noqa: PTH208 - numbers, not paths
    assert _exec(api, job, "wc -l < /root/nights").strip() == str(CYCLES)
    api.call("POST", f"/mags-jobs/{job}/stop")
    rows = []
    growths = (("time", times, 1.5), ("disk", sizes, 1.5), ("memory of the host program", memories, 1.2))
    for name, samples, goal in (*growths, ("descriptors of the host program", files, 1.2)):
        tenth = CYCLES // 10
        growth = statistics.median(samples[-tenth:]) / statistics.median(samples[tenth : 2 * tenth])
        rows.append(row(f"{CYCLES} nights: {name}, last tenth to second", "x", [growth], goal=goal))
    return rows


def _sleepers(mags: Installation, api: Api) -> list[Row]:
    _say(f"{SLEEPERS} sleeping VMs")
    before, disk = _ours_mb(mags), _disk_mb(mags)
    jobs = []
    for number in range(SLEEPERS):
        jobs.append(_sandbox(api, f"sleeper-{number}", memory_mb=256))
        api.call("POST", f"/mags-jobs/{jobs[-1]}/sleep")
    memory = (_ours_mb(mags) - before) / SLEEPERS
    size = (_disk_mb(mags) - disk) / SLEEPERS
    for job in jobs:
        api.call("POST", f"/mags-jobs/{job}/stop")
    return [
        row(f"{SLEEPERS} sleeping VMs: memory of ours for each", "MB", [memory], goal=1),
        row(f"{SLEEPERS} sleeping VMs: disk for each", "MB", [size]),
    ]


def _ours_mb(mags: Installation) -> float:
    """Resident memory of all processes of the installation, hypervisors too."""
    return sum(rss_mb(pid) for pids in mags.programs().values() for pid in pids)


def _disk_mb(mags: Installation) -> float:
    """Blocks of the VMs' directories that are theirs alone."""
    size = 0
    for folder, _, names in os.walk(mags.data / "host" / "vms"):
        for name in names:
            try:
                status = (Path(folder) / name).lstat()
            except FileNotFoundError:
                continue
            size += status.st_blocks * 512 if status.st_nlink == 1 else 0
    return size / 1e6
