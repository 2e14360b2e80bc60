"""Sandboxes that sleep and wake, as their users see it."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.kit.installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

COUNTER = (
    "mkdir -p /m; mount -t tmpfs none /m; "
    "(i=0; while :; do i=$((i+1)); echo $i >/m/.n; mv /m/.n /m/n; sleep 0.1; done) >/dev/null 2>&1 & "
    "until test -s /m/n; do sleep 0.1; done"
)
DEADLINE_S = 120.0


def until(mags: Installation, name: str, status: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while mags.json("status", name)["status"] != status:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_sandbox_sleeps_and_goes_on_where_it_was(mags: Installation) -> None:
    mags.cli("new", "dreamer")
    mags.cli("exec", "dreamer", COUNTER)
    before = int(mags.out("exec", "dreamer", "cat /m/n"))
    mags.cli("sleep", "dreamer")
    until(mags, "dreamer", "sleeping")
    assert int(mags.out("exec", "dreamer", "cat /m/n")) >= before
    until(mags, "dreamer", "running")
    mags.cli("sleep", "dreamer")
    mags.cli("wake", "dreamer")
    until(mags, "dreamer", "running")
    mags.cli("stop", "dreamer")
    until(mags, "dreamer", "completed")


def test_a_sandbox_falls_asleep_by_itself_unless_it_may_not(mags: Installation) -> None:
    mags.cli("new", "sleepy")
    mags.cli("set", "sleepy", "--idle", "5")
    until(mags, "sleepy", "sleeping")
    mags.cli("wake", "sleepy")
    mags.cli("set", "sleepy", "--no-sleep")
    refused = mags.cli("sleep", "sleepy", check=False)
    assert refused.returncode != 0 and b"never to sleep" in refused.stderr
    mags.cli("stop", "sleepy")


def test_sandboxes_sleep_while_the_server_is_down(mags: Installation) -> None:
    mags.cli("new", "winter")
    mags.cli("exec", "winter", COUNTER)
    before = int(mags.out("exec", "winter", "cat /m/n"))
    mags.restart()
    until(mags, "winter", "sleeping")
    assert int(mags.out("exec", "winter", "cat /m/n")) >= before
    mags.cli("stop", "winter")


SERVER = r"""
printf '#!/bin/sh\nread line\nprintf "HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\nawake"' > /root/answer
chmod +x /root/answer
exec nc -lk -p 8080 -e /root/answer
"""


def test_a_sandbox_is_there_for_the_web_and_for_ssh_though_it_sleeps(mags: Installation) -> None:
    """A server keeps nothing awake that nobody asks anything."""
    mags.cli("run", "-p", "-d", "-n", "served", "--idle", "5", SERVER)
    until(mags, "served", "running")
    url = mags.out("url", "served", "8080").strip().split()[-1]
    curl = ["curl", "-sS", "--max-time", "60", url]
    for _ in range(2):
        until(mags, "served", "sleeping")
        done = subprocess.run(curl, capture_output=True, text=True, timeout=90, check=False)
        assert done.stdout == "awake", done.stderr
    mags.cli("sleep", "served")
    assert mags.cli("ssh", "served", "--", "echo", "here").stdout == b"here\n"
    mags.cli("stop", "served")


def test_a_synced_workspace_sleeps_with_its_sandbox(mags: Installation) -> None:
    mags.cli("run", "-p", "-d", "-n", "cook", "-w", "pantry", "echo flour > /root/shelf")
    until(mags, "cook", "running")
    mags.cli("exec", "cook", COUNTER)
    before = int(mags.out("exec", "cook", "cat /m/n"))
    mags.cli("sleep", "cook")
    until(mags, "cook", "sleeping")
    assert int(mags.out("exec", "cook", "cat /m/n; echo sugar >> /root/shelf").split()[0]) >= before
    mags.cli("sync", "cook")
    assert mags.out("exec", "cook", "cat /root/shelf") == "flour\nsugar\n"
    mags.cli("sleep", "cook")
    until(mags, "cook", "sleeping")
    # Its memory is damaged: it starts afresh, with all files, and goes on being synced.
    image = max(mags.data.glob("host/vms/*/devices"), key=lambda path: path.stat().st_mtime)
    image.write_bytes(b"damaged")
    assert mags.out("exec", "cook", "cat /root/shelf; echo salt >> /root/shelf") == "flour\nsugar\n"
    until(mags, "cook", "running")
    assert "damaged" in mags.out("status", "cook")
    mags.cli("sleep", "cook")
    mags.cli("stop", "cook")
    assert mags.out("run", "-w", "pantry", "cat /root/shelf") == "flour\nsugar\nsalt\n"
