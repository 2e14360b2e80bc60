"""The client without the server's parts, as `pip install .` gives it: few packages, nothing that only POSIX has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mags.cli.table_of_commands import COMMANDS
from tests.kit.installation import Installation

ROOT = Path(__file__).parents[2]
PACKAGES = {"mags", "httpx", "websockets"}
THEIRS = {"httpcore", "h11", "anyio", "sniffio", "idna", "certifi", "typing-extensions"}
LOCAL = {"up", "down", "doctor", "image"}
"""Commands of the machine that a server runs on."""

AS_ON_WINDOWS = """
import asyncio, builtins, http.client, os, select, shutil, signal, socket, ssl, subprocess, sys, tarfile, tempfile
import httpx, websockets.asyncio.client, websockets.sync.client

POSIX = {"fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
genuine, asked = builtins.__import__, []

def refusing(name, globals=None, *rest):
    if name in POSIX and (globals or {}).get("__name__", "").startswith("mags"):
        asked.append(name)
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return genuine(name, globals, *rest)

builtins.__import__ = refusing
for name in ("fork", "getuid", "geteuid", "getgid", "killpg", "setsid", "uname", "statvfs", "chown", "openpty"):
    delattr(os, name)
for name in ("SIGHUP", "SIGQUIT", "SIGWINCH", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM", "SIGCHLD"):
    delattr(signal, name)
delattr(socket, "AF_UNIX")

import importlib, pkgutil
import mags, mags.cli.main
names = []
for package in ("mags.sdk", "mags.cli", "mags.cli.commands"):
    found = importlib.import_module(package)
    names += [f"{package}.{each.name}" for each in pkgutil.iter_modules(found.__path__)]
names.remove("mags.cli.local_images")  # of `mags image` and `mags up`
for name in names:
    importlib.import_module(name)
assert not asked, asked
for name in names:
    if name.startswith("mags.cli.commands."):
        command = name.rpartition(".")[2].replace("_", "-")
        assert mags.cli.main.main([command, "--help"]) == 0, command
server = {"mags.host", "mags.control", "mags.edge", "mags.supervisor"} & {*sys.modules}
assert not server, server
print("imported", len(names))
"""

INPUT_ON_WINDOWS = """
import os, sys, types
import mags.cli.main, mags.cli.terminal
mags.cli.terminal.os = types.SimpleNamespace(**{**vars(os), "name": "nt"})
sys.exit(mags.cli.main.main(["exec", "-i", "alone-box", "wc -c; exit 5"]))
"""

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the programs of an environment that has the client alone."""
    place = tmp_path_factory.mktemp("client") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, timeout=120)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python")]
    subprocess.run([*pip, "install", "-q", "-c", ROOT / "requirements.lock", ROOT], check=True, timeout=240)
    return place / "bin"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment that knows no server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAGS_", "PYTHON"))}
    return {**kept, "HOME": str(tmp_path)}


def call(client: Path, environment: dict[str, str], *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(client / words[0]), *words[1:]]
    return subprocess.run(
        command, env=environment, input=input, capture_output=True, text=True, timeout=120, check=False
    )


def test_it_is_few_packages(client: Path, home: dict[str, str]) -> None:
    listing = "import importlib.metadata as m, json; print(json.dumps([d.name for d in m.distributions()]))"
    found = {name.lower().replace("_", "-") for name in json.loads(call(client, home, "python", "-c", listing).stdout)}
    assert PACKAGES <= found <= PACKAGES | THEIRS


def test_every_command_explains_itself_where_there_is_no_posix(client: Path, home: dict[str, str]) -> None:
    done = call(client, home, "python", "-c", AS_ON_WINDOWS)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    assert "imported" in done.stdout.splitlines()[-1]


def test_commands_of_a_server_say_what_is_missing(client: Path, home: dict[str, str]) -> None:
    assert set(COMMANDS) > LOCAL
    for words in (["up"], ["down"], ["doctor"], ["image", "list"]):
        done = call(client, home, "mags", *words)
        assert done.returncode == 1
        assert "install Mags with [server]" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_it_works_with_a_server(client: Path, mags: Installation, home: dict[str, str]) -> None:
    signed_in = call(client, home, "mags", "login", "--api-url", mags.url, "--api-token", mags.token)
    assert signed_in.returncode == 0, signed_in.stderr
    done = call(client, home, "mags", "run", "-n", "alone", "echo from alone; exit 3")
    assert (done.returncode, done.stdout) == (3, "from alone\n")
    assert call(client, home, "mags", "logs", "alone").stdout == "from alone\n"
    try:
        assert call(client, home, "mags", "new", "alone-box").returncode == 0
        assert call(client, home, "mags", "exec", "alone-box", "cat /etc/hostname || hostname").returncode == 0
        done = call(client, home, "python", "-c", INPUT_ON_WINDOWS, input="x" * 100_000)
        assert (done.returncode, done.stdout.strip()) == (5, "100000"), done.stderr
        script = """
from mags import Mags
with Mags() as m:
    print(m.run_and_wait("exit 4")["exit_code"])
"""
        done = call(client, home, "python", "-c", script)
        assert done.stdout == "4\n", done.stderr
    finally:
        call(client, home, "mags", "stop", "alone-box")
