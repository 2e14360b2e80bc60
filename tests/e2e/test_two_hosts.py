"""Two hosts under one control, workspaces in S3 with their metadata in PostgreSQL: files go where they are wanted, and
of two hosts that both believe they own a workspace, one is right."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import fleet as fleets
from tests.kit.fleet import PATIENCE_S, Fleet, until
from tests.kit.line import Line

pytestmark = [pytest.mark.vm, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def fleet(base_image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with (
        fleets.metadata() as meta,
        fleets.seaweedfs(tmp_path_factory.mktemp("weed")) as store,
        Fleet(meta, store, lost_s=6) as fleet,
    ):
        yield fleet


def test_files_go_to_another_host_when_theirs_is_stopped_cut_off_or_without_power(fleet: Fleet) -> None:
    mags = fleet.mags
    a = fleet.host("a")
    mags.cli("new", "always", "-p", "--no-sleep", "--startup-command", "echo up >> /root/starts; sleep 5000")
    mags.cli("exec", "always", "echo kept > /root/f")
    mags.cli("sync", "always")
    mags.cli("run", "-w", "stopped", "echo 1 > /root/f")
    mags.cli("stop", "stopped")
    mags.cli("run", "-w", "parked", "echo 1 > /root/f; echo straight > /jfs/f")
    until(lambda: mags.json("workspace", "show", "parked")["last_synced_at"], "it is synced because its run has ended")
    mags.cli("run", "-w", "torn", "echo 1 > /root/f")
    mags.cli("sync", "torn")

    b = fleet.host("b")
    a.freeze()
    # Nobody waits for the frozen one: what was stopped starts elsewhere at once, the rest when its host is lost.
    assert mags.out("run", "-w", "stopped", "cat /root/f") == "1\n"
    assert mags.json("status", "stopped")["host_id"] == "b"
    until(
        lambda: fleet.view("a", "load") is None and _host_of(fleet, "always") == "b", "the one that never sleeps moves"
    )
    assert mags.out("run", "-w", "torn", "cat /root/f; echo 2 > /root/f") == "1\n"
    mags.cli("sync", "torn")
    assert _out(fleet, "always", "cat /root/f /root/starts") == "kept\nup\n"

    # The frozen host goes on: what it has is stale, is refused, and ends; nothing of it reaches the store.
    assert a.vms()
    a.thaw()
    until(lambda: not a.vms(), "the stale VMs end")
    for workspace in ("torn", "stopped"):
        mags.cli("stop", workspace)
    assert mags.out("run", "-w", "torn", "cat /root/f") == "2\n"

    # Now the other one loses its power in the middle of everything.
    mags.cli("exec", "always", "echo more >> /root/f")
    mags.cli("sync", "always")
    b.perish()
    assert mags.out("run", "-w", "parked", "cat /root/f /jfs/f") == "1\nstraight\n"
    until(lambda: _host_of(fleet, "always") == "a", "it is started again on the host that is left")
    assert _out(fleet, "always", "cat /root/f /root/starts") == "kept\nmore\nup\nup\n"
    mags.cli("stop", "always")


def _host_of(fleet: Fleet, name: str) -> str | None:
    status = fleet.mags.json("status", name)
    return str(status["host_id"]) if status["status"] == "running" else None


def _out(fleet: Fleet, name: str, command: str) -> str:
    """What a command prints, once its VM answers: it may be just coming up."""
    done: list[subprocess.CompletedProcess[bytes]] = []

    def ran() -> bool:
        done[:] = [fleet.mags.cli("exec", name, command, check=False)]
        return done[0].returncode == 0

    until(ran, f"{name} answers")
    return done[0].stdout.decode()


def test_a_planned_end_of_a_host_loses_nothing(fleet: Fleet) -> None:
    a = fleet.host("a")
    fleet.mags.cli("run", "-w", "planned", "echo 1 > /root/f")
    fleet.mags.cli("sync", "planned")
    a.end(signal.SIGTERM)
    fleet.hosts["b"].start()
    fleet.host("b")
    assert fleet.mags.out("run", "-w", "planned", "cat /root/f; echo 2 > /root/f") == "1\n"
    fleet.mags.cli("stop", "planned")
    # It comes back, takes up the VM that it had, and is told that this one is stale.
    a.start()
    fleet.host("a")
    until(lambda: not a.vms(), "the stale VM ends")
    assert fleet.mags.out("run", "-w", "planned", "cat /root/f") == "2\n"


def test_pages_and_shells_of_hosts_that_the_edge_has_no_way_to_go_through_nats(fleet: Fleet) -> None:
    mags = fleet.mags
    fleet.host("a")
    page = "printf 'HTTP/1.0 200 OK\\r\\n\\r\\nfrom afar'"
    mags.cli("run", "-p", "-d", "-n", "web", f"while true; do {page} | nc -l -p 8080 >/dev/null; done")
    until(lambda: _host_of(fleet, "web") is not None, "it runs")
    url = mags.out("url", "web", "8080").split()[-1]
    done = subprocess.run(["curl", "-sS", "--max-time", "60", url], capture_output=True, timeout=90, check=False)
    assert done.stdout == b"from afar", done.stderr
    assert mags.out("ssh", "web", "--", "hostname") == "mags-vm\n"
    mags.cli("stop", "web")


def test_a_host_that_is_taken_out_of_service_hands_over_what_it_has(fleet: Fleet) -> None:
    mags, a, b = fleet.mags, fleet.host("a"), fleet.host("b")
    _only(fleet, "a")
    mags.cli("new", "box", "-p", "--startup-command", "echo up >> /root/f")
    mags.cli("exec", "box", "echo kept > /root/f")
    mags.cli("run", "-w", "left", "echo 1 > /root/f")
    running = mags.popen("run", "sleep 3; echo done")
    until(lambda: len(a.vms()) == 3, "the script runs")
    b.start()
    fleet.host("b")
    program = a.leave()
    assert mags.out("run", "-w", "left", "cat /root/f") == "1\n"
    assert mags.json("status", "left")["host_id"] == "b"
    output, _ = running.communicate(timeout=120)
    assert (running.returncode, output) == (0, b"done\n")
    assert program.wait(timeout=120) == 0 and not a.vms()
    assert _out(fleet, "box", "cat /root/f") == "kept\nup\n"
    assert _host_of(fleet, "box") == "b"


WATCHES_LATE = """
import asyncio, os, runpy, sys
from mags.host.attachments.workspace import Workspace
watch = Workspace._watch
async def late(self):
    while not os.path.exists(sys.argv[1]):
        await asyncio.sleep(0.1)
    await watch(self)
Workspace._watch = late
runpy.run_module("mags.host", run_name="__main__")
"""
"""A host program that looks whose its workspaces are when there is a file, and not before."""


def test_a_host_that_is_cut_off_from_control_ends_what_was_given_to_another(fleet: Fleet, tmp_path: Path) -> None:
    """Nobody tells it: both see the store, and there it says whose the workspace is."""
    mags, b, watch = fleet.mags, fleet.host("b"), tmp_path / "watch"
    with Line(fleet.nats) as line:
        c = fleet.host("c", line=line, words=("-c", WATCHES_LATE, str(watch)))
        _only(fleet, "c")
        mags.cli("run", "-w", "both", "echo 1 > /root/f")
        mags.cli("sync", "both")
        # It writes to its disk all the time, and to /jfs.
        writing = "i=0; while :; do i=$((i+1)); echo old-$i > /root/f; echo old-$i > /jfs/f; sleep 0.2; done"
        mags.cli("run", "-w", "both", "-d", writing)
        until(lambda: c.vms(), "it runs")
        b.thaw_or_start()
        fleet.host("b")
        line.cut()
        until(lambda: fleet.view("c", "load") is None, "it is not heard any more")
        # What it writes to /jfs stays, though the other goes on writing there, as far as it can.
        took = "echo new > /jfs/f; cat /root/f >/dev/null; echo new > /root/f; sleep 7; cat /jfs/f"
        assert mags.out("run", "-w", "both", took) == "new\n"
        assert mags.json("status", "both")["host_id"] == "b"
        mags.cli("sync", "both")
        assert c.vms()
        watch.touch()
        until(lambda: not c.vms(), "the one that is cut off ends its VM by itself")
        line.mend()
        fleet.host("c")
        mags.cli("stop", "both")
        assert mags.out("run", "-w", "both", "cat /root/f /jfs/f") == "new\nnew\n"
        mags.cli("stop", "both")
        c.perish()


def _only(fleet: Fleet, host_id: str) -> None:
    """No other host takes anything."""
    for other in fleet.hosts.values():
        if other.host_id != host_id:
            other.end()
            until(lambda other=other: fleet.view(other.host_id, "load") is None, "it is not counted on")  # type: ignore[misc]


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_whatever_happens_to_hosts_no_sync_is_lost_and_none_is_torn(fleet: Fleet, seed: int) -> None:
    """Each round appends to a workspace and syncs it; then its host is frozen, killed, cut from power or taken out of
    service, at a random moment of another run, and comes back at a random moment of the rounds after."""
    chance, mags, name = random.Random(seed), fleet.mags, f"soak-{seed}"
    for host_id in ("a", "b"):
        _back(fleet, host_id)
    away: str | None = None
    step = "cd /root && {{ [ ! -e log ] || md5sum -c sum; }} && echo {0} >> log && md5sum log > sum && cat log | wc -l"
    for number in range(1, 16):
        lines = mags.out("run", "-w", name, step.format(number)).split()[-1]
        assert int(lines) >= number, f"round {number}: {lines} lines"
        mags.cli("sync", name)
        if away is not None and chance.random() < 0.7:
            _back(fleet, away)
            away = None
        host_id = str(mags.json("status", name)["host_id"])
        if away is not None or chance.random() < 0.2:
            continue
        under_way = mags.popen("run", "-w", name, "head -c 3000000 /dev/urandom > /root/noise; sync; sleep 1")
        time.sleep(chance.random() * 1.5)
        host = fleet.hosts[host_id]
        what = chance.choice(("freeze", "kill", "perish", "leave"))
        print(f"round {number}: {what} {host_id}")
        match what:
            case "freeze":
                host.freeze()
            case "kill":
                host.end(signal.SIGKILL)
            case "perish":
                host.perish()
            case "leave":
                host.leave()
        away = host_id
        under_way.communicate(timeout=PATIENCE_S)


def _back(fleet: Fleet, host_id: str) -> None:
    """The host is there and serves, whatever was done to it."""
    if host_id in fleet.hosts:
        fleet.hosts[host_id].thaw_or_start()
    fleet.host(host_id)
