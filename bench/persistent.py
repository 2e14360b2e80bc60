"""Sandboxes that stay: falling asleep, waking, what they cost meanwhile; the ways to them (bench.ssh, bench.edge)."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

from bench import edge, ssh
from bench.server import Api, milliseconds, rss_mb, server
from bench.table import Row, row
from mags.host.network.addresses import Subnet
from tests.kit.installation import Installation

RUNS = 20
DEATHS = 6
CYCLES = 100
SLEEPERS = 200
FILLED = 210 << 20
"""Bytes in the VM's memory, beside the 50 MB or so that its kernel and page cache use."""
FILL = f"mkdir -p /f; mount -t tmpfs none /f; head -c {FILLED} /dev/urandom > /f/x"
COUNT = (
    "mkdir -p /m; mount -t tmpfs none /m; "
    "(i=0; while :; do i=$((i+1)); echo $i >/m/.n; mv /m/.n /m/n; sleep 0.05; done) >/dev/null 2>&1 & "
    "until test -s /m/n; do sleep 0.05; done"
)
PAGE = r"""
cat > /root/answer <<'END'
#!/bin/sh
while read -r line && [ ${#line} -gt 1 ]; do :; done
printf "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npage"
END
chmod +x /root/answer
exec nc -lk -p 8080 -e /root/answer
"""
WAITING = {"persistent": True, "idle_timeout": 3600}


async def measure(
    parts: Collection[str] = ("sleep", "page", "ssh", "nights", "sleepers", "deaths", "edge"),
) -> list[Row]:
    rows = await asyncio.to_thread(_measure, parts)
    return rows + (await edge.measure() if "edge" in parts else [])


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _measure(parts: Collection[str]) -> list[Row]:
    measures: dict[str, Callable[[Installation], list[Row]]] = {
        "sleep": _used,
        "page": _pages,
        "ssh": _by_ssh,
        "nights": _nights,
        "sleepers": _sleepers,
        "deaths": _deaths,
    }
    wished = [each for part, each in measures.items() if part in parts]
    if not wished:
        return []
    # Syncs happen when a VM falls asleep only.
    with server(MAGS_HOST_POOL_TARGET="0", MAGS_HOST_STORAGE_SYNC_INTERVAL_S="3600") as mags:
        return [each for measure in wished for each in measure(mags)]


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


def _used(mags: Installation) -> list[Row]:
    rows = []
    for name, wish in (("", {}), (", with a workspace", {"workspace_id": "full"})):
        _say(f"sleep and wake, 256 MB in use{name}")
        rows += _falling_and_rising(Api(mags), name, **wish)
    return rows


def _falling_and_rising(api: Api, words: str, **wish: object) -> list[Row]:
    job = _sandbox(api, "full", FILL, memory_mb=512, **wish)
    _exec(api, job, f"test $(stat -c %s /f/x) -eq {FILLED}")
    falling, rising, first = [], [], []
    for _ in range(RUNS):
        if wish:
            api.call("POST", f"/mags-jobs/{job}/sync")
        falling.append(_timed(api, job, "sleep"))
        rising.append(_timed(api, job, "wake"))
        api.call("POST", f"/mags-jobs/{job}/sleep")
        begin = time.perf_counter()
        _exec(api, job, "true")
        first.append(milliseconds(begin))
    api.call("POST", f"/mags-jobs/{job}/stop")
    return [
        row(f"sleep, 256 MB used{f'{words}, after its sync' if words else ''}", "ms", falling, goal=150),
        row(f"wake to running{words}", "ms", rising, goal=150),
        row(f"wake to first exec answered{words}", "ms", first, goal=600),
    ]


def _pages(mags: Installation) -> list[Row]:
    _say("first pages")
    api = Api(mags)
    request_id = api.run(PAGE, name="page", **WAITING)
    _exec(api, request_id, "until nc -z 127.0.0.1 8080; do sleep 0.1; done")
    site = str(api.call("POST", f"/mags-jobs/{request_id}/access", {"port": 8080})["url"]).split("/")[2]

    def get(address: str = mags.apps) -> float:
        begin = time.perf_counter()
        connection = http.client.HTTPConnection(address, timeout=120)
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
    straight = f"{_address(mags, api, request_id)}:8080"
    direct, awake = [], []
    for _ in range(2 * RUNS):
        direct.append(get(straight))
        awake.append(get())
    api.call("POST", f"/mags-jobs/{request_id}/stop")
    baseline = row("page of a VM that is awake (a process for each), straight from it", "ms", direct)
    return [
        row("first page of a sleeping VM, by its URL", "ms", asleep, goal=800),
        baseline,
        row("the same by its URL", "ms", awake, goal=baseline.median + 10, baseline=baseline),
    ]


def _address(mags: Installation, api: Api, job: str) -> str:
    """Where the host reaches the VM."""
    vm_id = api.call("GET", f"/mags-jobs/{job}")["vm_id"]
    for path in (mags.data / "host" / "records").glob("*.json"):
        record = json.loads(path.read_text())
        if record["vm_id"] == vm_id:
            return Subnet.parse(mags.environment["MAGS_HOST_SUBNET"]).pair(record["namespace"]).address
    raise RuntimeError(f"no record of VM {vm_id}")


def _by_ssh(mags: Installation) -> list[Row]:
    _say("by SSH")
    api = Api(mags)
    job = _sandbox(api, "ssh", memory_mb=512)
    _exec(api, job, "true")
    rows = asyncio.run(ssh.measure(api.call("POST", f"/mags-jobs/{job}/access", {"port": 22})))
    Api(mags).call("POST", f"/mags-jobs/{job}/stop")  # the other connection has been idle for too long
    return rows


def _nights(mags: Installation) -> list[Row]:
    """One VM falls asleep and wakes; a counter in its memory and a file on its disk go on."""
    _say(f"{CYCLES} nights of one VM")
    api = Api(mags)
    job = _sandbox(api, "cycles", COUNT)
    seen: dict[str, list[float]] = {}
    count = 0
    for number in range(CYCLES):
        now = int(_exec(api, job, f"echo {number} >> /root/nights; cat /m/n"))
        assert now > count, "the counter in its memory has stopped, or began anew"
        count = now
        sample = {
            "time to sleep": _timed(api, job, "sleep"),
            "disk": _disk_mb(mags),
            "entries on disk": float(sum(len(names) for _, _, names in os.walk(mags.data))),
            "memory of our programs": sum(rss_mb(pid) for pid in _ours(mags)),
            "descriptors of our programs": float(sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in _ours(mags))),  # noqa: PTH208 - numbers, not paths
            "time to wake": _timed(api, job, "wake"),
        }
        for name, value in sample.items():
            seen.setdefault(name, []).append(value)
    assert _exec(api, job, "wc -l < /root/nights").strip() == str(CYCLES)
    api.call("POST", f"/mags-jobs/{job}/stop")
    rows, tenth = [], CYCLES // 10
    for name, samples in seen.items():
        growth = statistics.median(samples[-tenth:]) / statistics.median(samples[tenth : 2 * tenth])
        goal = 1.5 if name.startswith("time") or name == "disk" else 1.2
        rows.append(row(f"{CYCLES} nights: {name}, last tenth to second", "x", [growth], goal=goal))
    return rows


def _ours(mags: Installation) -> list[int]:
    programs = mags.programs()
    return [pid for name in ("control", "host", "edge") for pid in programs[name]]


def _hypervisors(mags: Installation) -> list[int]:
    return [pid for name, pids in mags.programs().items() if name.startswith("qemu") for pid in pids]


def _deaths(mags: Installation) -> list[Row]:
    """From the end of a VM that nobody wished to that of its job, as it is recorded."""
    _say("deaths")
    api = Api(mags)
    samples = []
    for _ in range(DEATHS):
        job = api.run("echo up; sleep 1000")
        while not api.call("GET", f"/mags-jobs/{job}/logs")["logs"]:
            time.sleep(0.05)
        while len(victims := _hypervisors(mags)) > 1:  # of an earlier job, still ending
            time.sleep(0.1)
        begin = time.perf_counter()
        os.kill(victims[0], signal.SIGKILL)
        status = api.until_recorded(job)
        samples.append(milliseconds(begin))
        assert status["status"] == "error" and "signal 9" in status["error"], status
    return [row("from the death of a VM to its job's recorded end", "ms", samples, goal=5000)]


def _sleepers(mags: Installation) -> list[Row]:
    _say(f"{SLEEPERS} sleeping VMs")
    api = Api(mags)
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
