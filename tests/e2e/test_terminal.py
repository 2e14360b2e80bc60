"""A person at the terminal of a sandbox: a shell, a full-screen editor, keys that interrupt, a window that changes."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.installation import MAGS, Installation
from tests.kit.terminal import Terminal

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

PROMPT = r"# (?:\x1b\[6n)?$"
"""The shell may ask the terminal where its cursor is."""
RUNNING = "sh -c 'echo be\"\"gun; exec sleep 1000'\n"


async def test_ctrl_c_interrupts_a_command_that_has_a_terminal_but_no_stdin(mags: Installation) -> None:
    mags.cli("new", "deaf")
    made = Terminal()
    try:
        await made.start([MAGS, "exec", "-t", "deaf", "echo begun; sleep 1000"], environment=mags.environment)
        await made.expect("begun")
        made.type("\x03")
        assert await made.wait() == 128 + 2
    finally:
        await made.close()
        mags.cli("stop", "deaf", check=False)


@pytest.fixture
async def terminal(mags: Installation) -> AsyncIterator[Terminal]:
    """At the prompt of `mags ssh desk`."""
    mags.cli("new", "desk")
    made = Terminal(30, 90)
    try:
        await made.start([MAGS, "ssh", "desk"], environment={**mags.environment, "TERM": "xterm"})
        await made.expect(PROMPT)
        yield made
        made.type("exit 4\n")
        assert await made.wait() == 4
    finally:
        await made.close()
        mags.cli("stop", "desk", check=False)


async def test_a_file_is_written_in_an_editor_and_the_window_and_the_keys_are_the_persons(
    terminal: Terminal, mags: Installation, tmp_path: Path
) -> None:
    terminal.type("vi /root/note\n")
    await terminal.expect(r"~(.|\n)*\x1b\[30;1H")  # 30 rows; the last one tells the state
    terminal.type("ihello from an editor\rsecond line")
    await terminal.expect("second line")
    terminal.resize(40, 100)
    await terminal.expect(r"\x1b\[40;1H")  # drawn anew for the window that it has now
    terminal.type("\x1b")
    await terminal.expect(r"- /root/note")
    terminal.type(":wq\r")
    await terminal.expect(PROMPT)
    terminal.type("stty size\n")
    await terminal.expect(r"40 100")
    await terminal.expect(PROMPT)

    terminal.type(RUNNING)
    await terminal.expect("begun")
    terminal.type("\x03")
    await terminal.expect(PROMPT)
    terminal.type(RUNNING)
    await terminal.expect("begun")
    terminal.type("\x1a")  # Ctrl-Z
    await terminal.expect("Stopped")
    await terminal.expect(PROMPT)
    terminal.type("kill -9 %1; while jobs >/tmp/jobs; test -s /tmp/jobs; do :; done; echo over\n")
    await terminal.expect(r"\nover")
    await terminal.expect(PROMPT)

    copy = tmp_path / "note"
    await asyncio.to_thread(mags.cli, "cp", "desk:/root/note", str(copy))
    assert copy.read_text() == "hello from an editor\nsecond line\n"


async def test_a_connection_that_is_cut_ends_what_ran_at_the_terminal(terminal: Terminal, mags: Installation) -> None:
    other = Terminal()
    try:
        await other.start([MAGS, "ssh", "desk"], environment=mags.environment)
        await other.expect(PROMPT)
        other.type("sleep 7654\n")
        await other.expect(r"\n")
        running = "pgrep -f 'sleep 765[4]' >/dev/null"
        await asyncio.to_thread(mags.cli, "exec", "desk", f"until {running}; do sleep 0.1; done")
    finally:
        await other.close()
    await asyncio.to_thread(mags.cli, "exec", "desk", f"while {running}; do sleep 0.1; done")


def test_openssh_reaches_ports_of_the_vm_and_forwards_no_agent(mags: Installation) -> None:
    """By the very command line that `mags ssh` uses, with more asked for."""
    mags.cli("new", "ports")
    try:
        serve = (
            "echo 'echo from inside' > /answer; chmod +x /answer; (nc -lk -s 127.0.0.1 -p 5432 -e /bin/sh /answer &)"
        )
        mags.cli("exec", "ports", f"{serve}; until nc -z 127.0.0.1 5432; do sleep 0.1; done")
        words = ["ssh", "-F", "none", "-i", str(mags.home / "key"), "-o", "LogLevel=ERROR"]
        words += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={mags.home / 'known'}"]
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(mags.home / "key")], check=True)
        mags.cli("ssh-key", "add", str(mags.home / "key.pub"))
        host, _, port = mags.ssh.partition(":")
        there = ["-p", port, f"ports@{host}"]

        def ssh(*more: str) -> subprocess.CompletedProcess[bytes]:
            return subprocess.run(
                [*words, *more], capture_output=True, timeout=120, check=False, stdin=subprocess.DEVNULL
            )

        assert ssh("-W", "localhost:5432", *there).stdout == b"from inside\n"
        assert ssh(*there, "id -un; exit 3").stdout == b"root\n"
        assert ssh("-A", *there, 'echo "agent: $SSH_AUTH_SOCK"').stdout == b"agent: \n"
        assert ssh("-o", "ExitOnForwardFailure=yes", "-R", "9000:localhost:1", *there, "true").returncode == 255
    finally:
        mags.cli("stop", "ports", check=False)
