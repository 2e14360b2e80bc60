"""The spine: from a script to its recorded exit, and what the machine allows at best beside it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from bench import floor
from bench.server import Api, milliseconds, rss_mb, server
from bench.table import Row, row, tail
from tests.kit.installation import Installation

RUNS = 30
OUTPUTS = 20
FLOOD_S = 60.0
CLIENTS = 20


async def measure(parts: Collection[str] = ("pool", "exec", "output", "empty", "many")) -> list[Row]:
    _say("the floor: bare clones and the guest channel")
    rows, baseline = await floor.measure()
    if {"pool", "exec", "output"}.intersection(parts):
        rows += await asyncio.to_thread(_api, baseline, parts)
    if "empty" in parts:
        rows += await asyncio.to_thread(_without_a_pool, baseline)
    if "many" in parts:
        rows += await asyncio.to_thread(_many)
    return rows


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _api(baseline: Row, parts: Collection[str]) -> list[Row]:
    rows: list[Row] = []
    with server(MAGS_HOST_POOL_TARGET="2") as mags:
        api = Api(mags)
        api.until_recorded(api.run("echo warm"))
        if "pool" in parts:
            rows += _jobs(mags, api, baseline)
        if "exec" in parts:
            rows += _execs(mags, api, baseline)
        if "output" in parts:
            rows += _output(mags, api)
    return rows


def _jobs(mags: Installation, api: Api, baseline: Row) -> list[Row]:
    _say("jobs from the pool")
    samples, clones = [], 0
    for _ in range(RUNS):
        api.settle(2)
        begin = time.perf_counter()
        request_id = api.run("echo hi")
        end = api.frames(request_id)
        samples.append(milliseconds(begin))
        status = api.call("GET", f"/mags-jobs/{request_id}/status")
        assert all(status[key] == end[key] for key in ("status", "exit_code", "error")), (status, end)
        assert status["status"] == "completed" and status["start_kind"] in ("pool", "clone"), status
        clones += status["start_kind"] == "clone"
    if clones:
        _say(f"{clones} of {RUNS} found the pool empty")
    goal = min(100, 4 * baseline.median)
    whole = row("API: POST to recorded exit, pool VM", "ms", samples, goal=goal, baseline=baseline)
    samples = []
    for _ in range(RUNS):
        api.settle(2)
        begin = time.perf_counter()
        mags.cli("run", "echo hi")
        samples.append(milliseconds(begin))
    return [whole, tail(whole, goal=400), row("mags run 'echo hi', whole process", "ms", samples, goal=400)]


def _output(mags: Installation, api: Api) -> list[Row]:
    _say("100 MB of output")
    programs = {name: mags.programs()[name][0] for name in ("host", "control", "nats-server")}
    samples = []
    growths: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(OUTPUTS):
        api.settle(2)
        before = {name: rss_mb(pid) for name, pid in programs.items()}
        most = dict(before)
        begin = time.perf_counter()
        with ThreadPoolExecutor(1) as aside:
            # In blocks: `head -c` of the guest's busybox takes each byte by itself, more work than all that follows.
            done = aside.submit(mags.cli, "run", "dd if=/dev/zero bs=100000 count=1000 2>/dev/null")
            while not done.done():
                for name, pid in programs.items():
                    most[name] = max(most[name], rss_mb(pid))
                time.sleep(0.02)
        samples.append(100 / (time.perf_counter() - begin))
        for name in programs:
            growths[name].append(most[name] - before[name])
        assert len(done.result().stdout) == 100_000_000
    return [
        row("100 MB of output through mags run", "MB/s", samples, goal=15, at_least=True),
        row("  the host program's memory grows meanwhile by", "MB", growths["host"], goal=20),
        row("  control's", "MB", growths["control"], goal=20),
        row("  that of NATS", "MB", growths["nats-server"]),
    ]


def _execs(mags: Installation, api: Api, baseline: Row) -> list[Row]:
    _say("execs")
    request_id = api.run("true", persistent=True, name="bench-box")
    while api.call("GET", f"/mags-jobs/{request_id}/status")["status"] != "running":
        time.sleep(0.01)
    api.call("POST", "/mags-jobs/bench-box/exec", {"command": "echo warm"})
    time.sleep(2)
    samples = []
    for _ in range(RUNS * 2):
        begin = time.perf_counter()
        api.call("POST", "/mags-jobs/bench-box/exec", {"command": "echo hi"})
        samples.append(milliseconds(begin))
    rows = [row("API: exec on a running VM", "ms", samples, goal=2 * baseline.median, baseline=baseline)]
    samples = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        mags.cli("exec", "bench-box", "echo hi")
        samples.append(milliseconds(begin))
    rows.append(row("mags exec, whole process", "ms", samples, goal=350))
    mags.cli("stop", "bench-box")
    return rows


def _without_a_pool(baseline: Row) -> list[Row]:
    _say("jobs with the pool empty")
    with server(MAGS_HOST_POOL_TARGET="0") as mags:
        api = Api(mags)
        api.until_recorded(api.run("echo warm"))
        samples = []
        for _ in range(RUNS):
            time.sleep(0.2)
            begin = time.perf_counter()
            request_id = api.run("echo hi")
            api.frames(request_id)
            api.until_recorded(request_id)
            samples.append(milliseconds(begin))
    return [row("the same with the pool empty (clone path)", "ms", samples, goal=500, baseline=baseline)]


def _many() -> list[Row]:
    rows = []
    with server(MAGS_HOST_POOL_TARGET="4") as mags:
        api = Api(mags)
        api.until_recorded(api.run("echo warm"))
        control = mags.programs()["control"][0]
        _say(f"{CLIENTS} clients for {FLOOD_S:g} s")
        done, failed = _flood(mags)
        rows.append(
            row(
                f"fresh-VM jobs a second, {CLIENTS} clients, {FLOOD_S:g} s",
                "1/s",
                [done / FLOOD_S],
                goal=4,
                at_least=True,
            )
        )
        rows.append(row("  of these failed", "", [float(failed)], goal=0))
        _say("100 idle VMs")
        boxes = [f"box-{number}" for number in range(100)]
        for box in boxes:
            api.run("true", persistent=True, name=box, memory_mb=512)
        begin = time.perf_counter()
        for box in boxes:
            while api.call("GET", f"/mags-jobs/{box}/status")["status"] == "pending":
                time.sleep(0.1)
        rows.append(row("100 VMs up", "s", [time.perf_counter() - begin]))
        answers = 0
        for box in boxes:
            answers += (
                api.call("POST", f"/mags-jobs/{box}/exec", {"command": "echo hi", "timeout": 60})["stdout"] == "hi\n"
            )
        rows.append(row("  of 100 idle VMs answer", "", [float(answers)], goal=100, at_least=True))
        rows.append(row("control's memory with 100 VMs up", "MB", [rss_mb(control)]))
        rows += _memory(api, boxes, control)
        for box in boxes:
            api.call("POST", f"/mags-jobs/{box}/stop", {})
    return rows


def _memory(api: Api, boxes: list[str], control: int) -> list[Row]:
    """Control's, with half of the VMs, and then with a thousand jobs recorded."""
    _say("1,000 jobs")
    for box in boxes[50:]:
        api.call("POST", f"/mags-jobs/{box}/stop", {})
    recorded = api.call("GET", "/mags-jobs?page_size=1")["total"]
    first = rss_mb(control)
    for _ in range(max(0, 1000 - recorded)):
        api.until_recorded(api.run("true", workspace_id="bench", no_sync=True))
    memory = rss_mb(control)
    return [
        row("control's memory at 1,000 jobs recorded and 50 VMs", "MB", [memory]),
        row(f"  to that at {recorded} jobs", "x", [memory / first], goal=1.1),
    ]


def _flood(mags: Installation) -> tuple[int, int]:
    deadline = time.monotonic() + FLOOD_S
    counts = [0, 0]
    lock = threading.Lock()

    def client() -> None:
        api = Api(mags)
        while time.monotonic() < deadline:
            request_id = api.run("echo hi")
            api.frames(request_id)
            status = api.until_recorded(request_id)
            with lock:
                good = status["status"] == "completed" and status["exit_code"] == 0
                counts[0 if good else 1] += 1

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts[0], counts[1]
