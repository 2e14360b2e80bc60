"""`mags up` as its user has it, with everything but VMs (those are in tests/e2e)."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.installation import MAGS, Installation, free_port

pytestmark = pytest.mark.timeout(180)
DEADLINE = 90.0
PROGRAMS = {"control", "edge", "nats-server"}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(mags: Installation) -> dict[str, int]:
    """One pid for each program of ours."""
    return {name: pids[0] for name, pids in mags.programs().items() if name in PROGRAMS}


@pytest.fixture
def mags() -> Iterator[Installation]:
    with Installation(flags=("--programs", "control,edge")) as installation:
        yield installation


def test_it_is_up_and_comes_back_whatever_is_killed(mags: Installation) -> None:
    assert set(running(mags)) == PROGRAMS
    assert mags.json("status", "--server")["status"] == "ok"
    assert mags.json("whoami")["name"] == "admin"
    assert json.loads((mags.home / ".mags" / "config.json").read_text()) == {
        "api_url": mags.url, "api_token": mags.token
    }  # fmt: skip

    _a_second_one_is_refused(mags)
    for name in sorted(PROGRAMS):
        before = running(mags)[name]
        os.kill(before, signal.SIGKILL)
        until(lambda name=name, before=before: running(mags).get(name, before) != before)  # type: ignore[misc]
        assert mags.json("whoami")["name"] == "admin"
    until(lambda: _accepts(mags.apps) and _accepts(mags.ssh))
    until(lambda: "3 restarts" in (mags.folder / "up.log").read_text())

    _killed_itself_it_takes_its_programs_with_it(mags)
    mags.start()
    assert mags.json("whoami")["name"] == "admin"

    assert "down" in mags.cli("down").stderr.decode()
    assert running(mags) == {} and not (mags.data / "run" / "up.json").exists()
    assert mags.up is not None and mags.up.wait(timeout=DEADLINE) == 0
    assert "not up" in mags.cli("down").stderr.decode()


def _a_second_one_is_refused(mags: Installation) -> None:
    for flags in ((), ("-d",)):
        second = mags.cli("up", "--programs", "control,edge", *flags, check=False)
        assert second.returncode == 1 and b"up already" in second.stderr and b"mags down" in second.stderr


def _killed_itself_it_takes_its_programs_with_it(mags: Installation) -> None:
    mags.kill_up()
    until(lambda: running(mags) == {})


def _accepts(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """`mags` with a data directory of its own and nothing up."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAGS_UP")}
    environment |= {"MAGS_UP_DATA_DIR": str(tmp_path / "d"), "MAGS_CONFIG": str(tmp_path / "config.json")}

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [MAGS, *words], env=environment | more, capture_output=True, text=True, timeout=DEADLINE, check=False
        )

    yield run
    run("down")


def test_in_the_background_it_says_when_it_is_ready(alone: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Only the broker: as little as there can be."""
    started = alone("up", "-d", "--programs", "")
    assert started.returncode == 0 and "Mags is up at http://127.0.0.1:4280" in started.stderr and started.stdout == ""
    assert alone("down").stderr == "Mags is down.\n"


def test_a_terminal_that_is_closed_ends_it_in_order(tmp_path: Path) -> None:
    """What it would still say then goes nowhere, and nothing else suffers from that."""
    master, slave = pty.openpty()
    environment = os.environ | {"MAGS_UP_DATA_DIR": str(tmp_path / "d"), "MAGS_CONFIG": str(tmp_path / "config.json")}
    up = subprocess.Popen(
        [MAGS, "up", "--programs", "", "--api", f"127.0.0.1:{free_port()}"], env=environment, start_new_session=True,
        stdin=slave, stdout=slave, stderr=slave, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    said = b""
    while b"mags is up at" not in said:  # the status line
        said += os.read(master, 4096)
    os.close(master)
    assert up.wait(timeout=DEADLINE) == 0
    assert not list((tmp_path / "d" / "run").glob("*.pid"))


def test_a_taken_port_is_said_before_anything_starts(
    alone: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for flags in ((), ("-d",)):
            refused = alone("up", *flags, "--programs", "control", "--api", address)
            assert refused.returncode == 1 and f"Port {address.partition(':')[2]} (the API) is taken" in refused.stderr
    assert not (tmp_path / "d" / "log" / "nats.log").exists()


def test_a_program_that_cannot_start_is_said_with_its_last_words(
    alone: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    broken = alone(
        "up",
        "-d",
        "--programs",
        "control",
        "--api",
        "127.0.0.1:0",
        MAGS_CONTROL_DATABASE_URL="postgresql+asyncpg://127.0.0.1:1/x",
    )
    assert broken.returncode == 1 and "control" in broken.stderr and "control.log" in broken.stderr
    assert not (tmp_path / "d" / "run" / "up.json").exists()
    assert alone("down").stderr.startswith("Mags was not up")


def test_an_interrupt_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "MAGS_UP_DATA_DIR": str(tmp_path / "d"), "MAGS_CONFIG": str(tmp_path / "c.json")}
    process = subprocess.Popen(
        [MAGS, "up", "--programs", ""], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None and process.stderr.readline() == "starting nats-server\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert not any(str(tmp_path) in line for line in _commands())


def _commands() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_nats_listens_where_hosts_of_other_machines_reach_it() -> None:
    port = free_port()
    with Installation(environment={"MAGS_UP_NATS": f"0.0.0.0:{port}"}, flags=("--programs", "control")) as mags:
        record = json.loads((mags.data / "run" / "up.json").read_text())
        assert record["nats"] == f"127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.2", port), timeout=DEADLINE) as line:
            assert line.recv(5) == b"INFO "
        taken = Installation(flags=("--programs", "control", "--nats", f"0.0.0.0:{port}"))
        with pytest.raises(AssertionError, match=f"Port {port} \\(NATS\\) is taken"):
            taken.__enter__()
