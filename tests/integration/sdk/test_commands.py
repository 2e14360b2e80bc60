"""The commands of the CLI as processes, against a real control."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Queue
from threading import Thread
from urllib.parse import urlsplit

import pytest

from mags import Mags
from tests.integration.sdk.conftest import PATIENCE, Cli, Server
from tests.kit.installation import MAGS

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def box(m: Mags) -> str:
    m.new("clibox")
    return "clibox"


def test_run_passes_bytes_and_status(cli: Cli) -> None:
    done = cli("run", r"printf 'a\377\000'; echo err >&2; exit 7", status=7)
    assert (done.stdout, done.stderr) == (b"a\xff\x00", b"err\n")


def test_run_reads_a_script_from_stdin(cli: Cli) -> None:
    assert cli("run", "-", input=b"echo from stdin\n").stdout == b"from stdin\n"


def test_a_reader_that_leaves_ends_the_run(environment: dict[str, str], m: Mags) -> None:
    run = subprocess.Popen(
        [MAGS, "run", "-n", "endless", "yes"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert run.stdout is not None and run.stdout.read(2) == b"y\n"
    run.stdout.close()
    assert run.wait(timeout=PATIENCE) == 128 + signal.SIGPIPE
    assert run.stderr is not None
    run.stderr.close()
    _until(lambda: m.status("endless")["status"] in ("completed", "error"))


def test_a_full_disk_ends_the_run(environment: dict[str, str], m: Mags) -> None:
    with open("/dev/full", "wb") as full:
        run = subprocess.run(
            [MAGS, "run", "-n", "disk full", "echo hi; sleep 1000"],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert run.returncode == 1 and b"No space left on device" in run.stderr
    assert m.status("disk full")["status"] in ("completed", "error")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_job(environment: dict[str, str], m: Mags, number: signal.Signals) -> None:
    name = f"signalled {number.name}"
    run = subprocess.Popen(
        [MAGS, "run", "-n", name, "echo up; sleep 1000"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout is not None and run.stdout.readline() == b"up\n"
    run.send_signal(number)
    _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130 and b"stopping" in err
    assert m.status(name)["status"] in ("completed", "error")


def test_ctrl_c_before_the_answer_stops_the_job(environment: dict[str, str], server: Server, m: Mags) -> None:
    with _Mute(server.url) as way:
        run = subprocess.Popen(
            [MAGS, "run", "-n", "unanswered", "sleep 1000"],
            env={**environment, "MAGS_API_URL": way.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert b"202 Accepted" in way.kept()
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130 and b"stopping" in err
    made = [job["status"] for job in m.list_jobs()["jobs"] if job["name"] == "unanswered"]
    assert made in (["completed"], ["error"])


def test_exec_passes_streams_and_status(cli: Cli, box: str) -> None:
    done = cli("exec", box, "echo out; echo err >&2; exit 9", status=9)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    assert cli("exec", box, "printf", "%s|", "a b", "c").stdout == b"a b|c|"
    assert cli("exec", "-i", box, "cat", input=b"\0in\xff").stdout == b"\0in\xff"
    assert cli("exec", box, "cat", input=b"not passed on").stdout == b""
    assert cli("exec", "-e", "A=1", box, "echo $A").stdout == b"1\n"


def test_exec_says_what_is_wrong(cli: Cli, box: str) -> None:
    assert b"nowhere" in cli("exec", "nowhere", "true", status=125).stderr
    assert b"needs a terminal" in cli("exec", "-t", box, "true", status=2).stderr


def test_a_signal_reaches_the_command(environment: dict[str, str], box: str) -> None:
    command = "trap 'echo got it; exit 6' INT; echo up; while :; do sleep 0.05; done"
    process = subprocess.Popen([MAGS, "exec", box, command], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE)[0] == b"got it\n" and process.returncode == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_third_signal_in_a_row_is_meant_for_us(
    environment: dict[str, str], box: str, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [MAGS, "exec", box, "trap '' INT TERM; echo up; sleep 300"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    for _ in range(3):
        assert process.poll() is None
        process.send_signal(number)
        time.sleep(0.1)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and b"Interrupted" in err


def test_a_terminal_without_a_size_has_the_usual_one(environment: dict[str, str], box: str) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [MAGS, "exec", "-t", box, "stty size"],
            env=environment,
            stdin=theirs,
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, b"24 80\r\n")
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_terminal_is_passed_through(environment: dict[str, str], box: str) -> None:
    """Raw both ways: size, a change of it, Ctrl-C as a key, and our terminal as it was at the end."""
    ours, theirs = pty.openpty()
    try:
        _set_size(theirs, 30, 90)
        before = termios.tcgetattr(theirs)
        command = (
            "stty size; trap 'stty size' WINCH; trap 'echo bye; exit 5' INT; echo ready; while :; do sleep 0.05; done"
        )
        process = subprocess.Popen(
            [MAGS, "exec", "-it", box, command], env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        _expect(ours, b"ready", b"30 90")
        _set_size(theirs, 40, 100)
        _expect(ours, b"40 100")
        os.write(ours, b"\x03")
        _expect(ours, b"bye")
        assert process.wait(timeout=PATIENCE) == 5
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


def test_directories_are_copied_both_ways(cli: Cli, box: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(os.urandom(100_000))
    (source / "run.sh").write_text("x")
    (source / "run.sh").chmod(0o755)
    (source / "link").symlink_to("run.sh")
    there = tmp_path / "vm"
    there.mkdir()
    cli("cp", str(source), f"{box}:{there}/copy")
    cli("cp", str(source), f"{box}:{there}")
    assert _tree(there / "copy") == _tree(there / "source") == _tree(source)
    cli("cp", f"{box}:{there}/copy", str(tmp_path / "back"))
    assert _tree(tmp_path / "back") == _tree(source)


def test_a_directory_that_cannot_be_written_is_said(cli: Cli, box: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "source").mkdir()
    failed = cli("cp", str(tmp_path / "source"), f"{box}:{tmp_path}/file/below", status=1)
    assert b"could not be copied" in failed.stderr


def test_logs_list_status_and_stop(cli: Cli) -> None:
    request_id = cli("run", "-d", "-n", "listed", "echo line").stdout.decode().strip()
    assert cli("logs", "-f", "listed").stdout == b"line\n"
    assert cli("logs", "listed").stdout == b"line\n"
    assert cli("logs", "-f", "--tail", "0", "listed").stdout == b""
    stamp, _, line = cli("logs", "-f", "-t", "--tail", "1", "listed").stdout.partition(b" ")
    assert line == b"line\n" and stamp.endswith(b"Z")
    message, end = [json.loads(text) for text in cli("logs", "-f", "--json", "listed").stdout.splitlines()]
    assert message["message"] == "line" and end["status"] == "completed"
    assert request_id in cli("list", "-q").stdout.decode().split()
    assert b"completed" in cli("status", request_id).stdout
    assert cli("stop", "listed").stderr == b"'listed' is stopped.\n"
    assert b"nowhere" in cli("stop", "nowhere", status=1).stderr


def test_ssh_without_a_gateway_goes_through_the_api(cli: Cli) -> None:
    done = cli("ssh", "sshbox", "--", "echo made; exit 3", status=3)
    refused = cli("ssh", "-L", "8000:localhost:80", "-N", "sshbox", status=125)
    assert b"no port can be forwarded" in refused.stderr
    assert done.stdout == b"made\n" and b"making sandbox sshbox" in done.stderr and b"through the API" in done.stderr


class _Mute:
    """A way to the server on which the first answer is kept back."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._kept: Queue[bytes] = Queue()
        self._threads = [Thread(target=self._accept)]
        self._threads[0].start()

    def kept(self) -> bytes:
        return self._kept.get(timeout=PATIENCE)

    def _accept(self) -> None:
        first = True
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection((self._server.hostname or "", self._server.port or 0))
            answer = self._kept.put if first else near.sendall
            for source, take, then in ((near, far.sendall, far), (far, answer, near)):
                self._threads.append(Thread(target=_carry, args=(source, take, then)))
                self._threads[-1].start()
            first = False

    def __enter__(self) -> _Mute:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=PATIENCE)


def _carry(source: socket.socket, take: Callable[[bytes], object], then: socket.socket) -> None:
    with source, suppress(OSError):
        while data := source.recv(1 << 16):
            take(data)
        then.shutdown(socket.SHUT_WR)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _expect(terminal: int, *wanted: bytes) -> None:
    """Read until all of it was seen."""
    seen, deadline = b"", time.monotonic() + PATIENCE
    while not all(word in seen for word in wanted):
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096)


def _tree(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = (path.read_bytes(), path.stat().st_mode & 0o777)
        else:
            found[name] = None
    return found
