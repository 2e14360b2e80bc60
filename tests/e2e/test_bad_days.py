"""Each of our programs is killed with -9 while jobs run; many submissions at once; clients that vanish."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.kit.installation import MAGS, Installation
from tests.kit.marks import ONCE
from tests.kit.neighbour import NETWORK, neighbour

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]

LINES = 45
COUNT = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done"
EXPECTED = [f"line {number}" for number in range(LINES)]


@pytest.fixture(scope="module")
def victim(base_image: None) -> Iterator[Installation]:
    """An installation that is harmed, and must heal."""
    environment = {"MAGS_HOST_POOL_TARGET": "2", "MAGS_HOST_ALLOWED_NETWORKS": json.dumps([str(NETWORK)])}
    with Installation(environment=environment) as installation:
        installation.cli("run", "true")
        yield installation


def call(mags: Installation, method: str, path: str, body: object = None) -> Any:
    request = urllib.request.Request(
        f"{mags.url}/api/v1{path}",
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": f"Bearer {mags.token}", "Content-Type": "application/json"},
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except (OSError, urllib.error.URLError):  # the API is being started again
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def until_ended(mags: Installation, request_id: str, seconds: float = 120.0) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        status: dict[str, Any] = call(mags, "GET", f"/mags-jobs/{request_id}/status")
        if status["status"] in ("completed", "error"):
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.1)


def stdout_lines(mags: Installation, request_id: str) -> list[str]:
    entries = call(mags, "GET", f"/mags-jobs/{request_id}/logs")["logs"]
    return [entry["message"] for entry in entries if entry["stream"] == "stdout"]


@ONCE
@pytest.mark.parametrize("program", ["control", "host", "nats-server", "edge"])
def test_a_killed_program_loses_no_job_and_no_line(victim: Installation, program: str) -> None:
    jobs = [call(victim, "POST", "/mags-jobs", {"script": COUNT})["request_id"] for _ in range(3)]
    deadline = time.monotonic() + 90
    while any(call(victim, "GET", f"/mags-jobs/{job}/status")["status"] == "pending" for job in jobs):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    (pid,) = victim.programs()[program]
    os.kill(pid, signal.SIGKILL)
    for job in jobs:
        status = until_ended(victim, job)
        assert (status["status"], status["exit_code"]) == ("completed", 0), status
        assert stdout_lines(victim, job) == EXPECTED
    assert victim.out("run", "echo after") == "after\n"


@ONCE
def test_all_of_mags_up_may_die_and_its_jobs_go_on(victim: Installation) -> None:
    job = call(victim, "POST", "/mags-jobs", {"script": COUNT})["request_id"]
    deadline = time.monotonic() + 90
    while call(victim, "GET", f"/mags-jobs/{job}/status")["status"] == "pending":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    victim.kill_up()
    deadline = time.monotonic() + 60
    while any(name in victim.programs() for name in ("control", "host", "edge", "nats-server")):
        assert time.monotonic() < deadline, victim.programs()
        time.sleep(0.1)
    victim.start()
    status = until_ended(victim, job)
    assert (status["status"], status["exit_code"]) == ("completed", 0), status
    assert stdout_lines(victim, job) == EXPECTED


def test_jobs_whose_vms_die_end_in_error_within_five_seconds_and_others_go_on(victim: Installation) -> None:
    """The time is that of the record, whenever we come to look at it."""
    other = call(victim, "POST", "/mags-jobs", {"script": COUNT})["request_id"]
    body = {"script": "echo begun; sleep 1000", "memory_mb": 320}
    jobs = [call(victim, "POST", "/mags-jobs", body)["request_id"] for _ in range(3)]
    deadline = time.monotonic() + 90
    while any(stdout_lines(victim, job) != ["begun"] for job in jobs):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    pids = [pid for pid in victim.programs()["qemu-system-x86_64"] if _memory(pid) == "320"]
    assert len(pids) == len(jobs)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    killed = datetime.now(UTC)
    for job in jobs:
        status = until_ended(victim, job)
        assert status["status"] == "error" and status["error"] and status["exit_code"] is None
        assert datetime.fromisoformat(status["completed_at"]) - killed < timedelta(seconds=5)
    assert until_ended(victim, other)["exit_code"] == 0
    assert stdout_lines(victim, other) == EXPECTED


def _memory(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().split(b"\0")
    return words[words.index(b"-m") + 1].decode()


@ONCE
def test_two_hundred_submissions_at_once_are_all_carried_out_once(victim: Installation, tmp_path: Path) -> None:
    """Each job says its number, in a VM of its own, and leaves a trace outside of it."""
    count, seen = 200, list[str]()
    (tmp_path / "trace").touch()

    def submit(number: int) -> str:
        script = f"cat /proc/sys/kernel/random/boot_id; echo job {number}; wget -q -O - {url}/trace?{number}"
        return str(call(victim, "POST", "/mags-jobs", {"script": script, "name": "burst"})["request_id"])

    with neighbour(tmp_path, seen) as url:
        with ThreadPoolExecutor(count) as pool:
            jobs = list(pool.map(submit, range(count)))
        assert len(set(jobs)) == count
        deadline = time.monotonic() + 300
        while call(victim, "GET", "/mags-jobs?name=burst&status=completed")["total"] < count:
            assert time.monotonic() < deadline, call(victim, "GET", "/mags-jobs?name=burst&status=error")
            time.sleep(0.5)
    said = [stdout_lines(victim, job) for job in jobs]
    assert [lines[1:] for lines in said] == [[f"job {number}"] for number in range(count)]
    assert sorted(seen) == sorted(f"/trace?{number}" for number in range(count))
    assert {call(victim, "GET", f"/mags-jobs/{job}/status")["exit_code"] for job in jobs} == {0}


def test_a_client_that_vanishes_in_the_middle_of_a_stream_harms_nobody(victim: Installation) -> None:
    clients = [
        subprocess.Popen(
            [MAGS, "run", "-n", f"vanished-{number}", "while true; do echo x; done"],
            env=victim.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        for number in range(2)
    ]
    for client in clients:
        assert client.stdout is not None and client.stdout.read(1000)
        client.kill()
        client.wait()
        client.stdout.close()
    assert victim.out("run", "echo fine") == "fine\n"
    for number in range(2):
        victim.cli("stop", f"vanished-{number}")


def test_requests_of_many_threads_get_their_own_answers(victim: Installation) -> None:
    victim.cli("new", "crowd")
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(3):
            said = call(victim, "POST", "/mags-jobs/crowd/exec", {"command": f"echo {number}-{turn}", "timeout": 60})
            if said["stdout"] != f"{number}-{turn}\n":
                wrong.append(said)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    victim.cli("stop", "crowd")
