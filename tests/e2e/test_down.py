"""`mags down` in all its ways: nothing of an installation is left running, and nothing is lost that should stay."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.kit.installation import Installation

SITE = r"""
printf '#!/bin/sh\nprintf "HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n"\n' > /root/site
chmod +x /root/site
nohup nc -lk -p 8080 -e /root/site > /dev/null 2>&1 &
until nc -z 127.0.0.1 8080; do sleep 0.1; done
"""

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def mags(base_image: None) -> Iterator[Installation]:
    """As on a new machine. Up again after each test, but for the last one."""
    with Installation(environment={"MAGS_HOST_POOL_TARGET": "1"}, shares=False) as installation:
        yield installation


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_down_leaves_nothing_and_up_goes_on(mags: Installation) -> None:
    mags.cli("new", "asleep")
    mags.cli("exec", "asleep", "echo remembered > /dev/shm/it")
    mags.cli("sleep", "asleep")
    mags.cli("new", "awake")
    mags.cli("exec", "awake", "echo me too > /dev/shm/it")
    assert len(mags.in_the_kernel()) > 8
    mags.down()
    assert mags.in_the_kernel() == []
    mags.start()
    assert mags.out("exec", "asleep", "cat /dev/shm/it") == "remembered\n"
    assert mags.out("exec", "awake", "cat /dev/shm/it") == "me too\n"


def test_visitors_wake_nothing_that_was_just_put_to_sleep(mags: Installation) -> None:
    host = mags.out("url", "asleep", "8080").strip().split("/")[2]
    mags.cli("exec", "asleep", SITE)
    mags.cli("exec", "awake", "head -c 150000000 /dev/urandom > /dev/shm/much")  # it takes a while to put this away

    def visit(number: int) -> bool:
        try:
            httpx.get(f"http://{mags.apps}/{number}", headers={"Host": host}, timeout=60, trust_env=False)
        except (httpx.NetworkError, httpx.RemoteProtocolError):  # nobody is there any more
            return False
        return True

    with ThreadPoolExecutor(4) as visitors:
        visits = [visitors.submit(lambda: all(visit(number) for number in range(100_000))) for _ in range(4)]
        assert visit(0)
        said = mags.down()
        assert not any(done.result() for done in visits)
    assert "taking" not in said
    assert "could not be put away" not in (mags.folder / "up.log").read_text()
    assert mags.in_the_kernel() == []
    mags.start()
    assert mags.out("exec", "asleep", "cat /dev/shm/it") == "remembered\n"


def test_what_a_killed_up_has_left_is_put_away(mags: Installation) -> None:
    """Even with its programs killed, one of which does not listen."""
    mags.cli("new", "box")
    mags.cli("exec", "box", "echo in memory > /dev/shm/it")
    mags.cli("run", "-w", "files", "echo kept > /root/file")
    (control,) = mags.programs()["control"]
    os.kill(control, signal.SIGSTOP)
    mags.kill_up()
    for name in ("host", "nats-server"):
        for pid in mags.programs().get(name, []):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not {"host", "edge", "nats-server"} & set(mags.programs()))
    assert {"control", "qemu-system-x86_64"} <= set(mags.programs())

    said = mags.down()
    assert "taking" in said and "Mags is down." in said
    assert mags.in_the_kernel() == []
    mags.start()
    assert mags.out("exec", "box", "cat /dev/shm/it") == "in memory\n"
    assert mags.out("run", "-w", "files", "cat /root/file") == "kept\n"


def test_force_does_not_wait_for_vms(mags: Installation) -> None:
    mags.cli("new", "forced")
    mags.cli("exec", "forced", "echo on disk > /root/it; sync; echo x > /dev/shm/it")
    mags.kill_up()
    mags.down("--force")
    assert mags.in_the_kernel() == []
    mags.start()
    assert mags.out("exec", "forced", "cat /root/it /dev/shm/it 2>/dev/null; true") == "on disk\n"


def test_purge_takes_everything_when_it_was_said(mags: Installation) -> None:
    mags.cli("new", "last")
    mags.cli("run", "-w", "more-files", "echo kept > /root/file")
    theirs = mags.data / "not-ours"
    theirs.write_text("x")
    refused = mags.cli("down", "--purge", check=False)
    assert refused.returncode == 2 and b"--yes" in refused.stderr
    assert mags.out("exec", "last", "echo up") == "up\n"
    ids = mags.network_ids()

    said = mags.down("--purge", "--yes")
    assert str(theirs) in said and list(mags.data.iterdir()) == [theirs]
    assert ids and mags.in_the_kernel(ids) == []
    assert not (mags.home / ".mags" / "config.json").exists()
    assert b"no installation" in mags.cli("down", "--purge", "--yes", check=False).stderr
