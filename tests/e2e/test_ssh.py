"""A VM's shell from the outside: by `mags ssh`, OpenSSH, rsync, paramiko and asyncssh, on a port of the VM's own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pytest

from mags import Mags
from tests.kit.installation import MAGS, Installation, free_port
from tests.kit.terminal import Terminal

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

TIMEOUT = 120
CONNECTIONS = 100
"""The most from one address."""
IDLE_S = 5
BODY = os.urandom(2_000_000)
PROMPT = r"# (?:\x1b\[6n)?$"
"""The shell may ask the terminal where its cursor is."""

SERVER = r"""
cat > /answer <<'X'
#!/bin/sh
while read -r line && [ "$line" != "$(printf '\r')" ]; do :; done
printf 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfrom inside'
X
chmod +x /answer
(nc -lk -p 8080 -e /answer >/dev/null 2>&1 &)
until nc -z 127.0.0.1 8080; do sleep 0.1; done
"""


@pytest.fixture(scope="module")
def mags(base_image: None) -> Iterator[Installation]:
    """Its sandboxes have ports of their own."""
    first = random.randrange(15000, 31000, 10)
    environment = {
        "MAGS_HOST_POOL_TARGET": "2",
        "MAGS_CONTROL_SSH_PORT_FIRST": str(first),
        "MAGS_CONTROL_SSH_PORT_COUNT": "10",
        "MAGS_EDGE_SSH_PORT_RANGE": f"{first}-{first + 9}",
        "MAGS_EDGE_SSH_MAX_PER_CLIENT": str(CONNECTIONS),
    }
    with Installation(environment=environment) as installation:
        yield installation


@dataclass
class Box:
    """A sandbox with a port of its own and a key that opens it and no other."""

    name: str
    host: str
    port: int
    key: Path
    known: Path

    @property
    def options(self) -> list[str]:
        """Strict about the host key, silent, never asking."""
        return [
            "-F", "none", "-i", str(self.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={self.known}", "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR",
        ]  # fmt: skip

    @property
    def there(self) -> list[str]:
        return ["-p", str(self.port), f"root@{self.host}"]

    def ssh(self, *words: str, stdin: bytes = b"", **more: Any) -> subprocess.CompletedProcess[bytes]:
        argv = ["ssh", *self.options, *self.there, *words]
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=TIMEOUT, check=False, **more)

    def out(self, script: str, stdin: bytes = b"") -> bytes:
        done = self.ssh(script, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, program: str, *words: str, stdin: bytes = b"") -> None:
        """scp or sftp, which spell the port with a capital letter."""
        argv = [program, *self.options, "-P", str(self.port), *words]
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr

    async def connect(self) -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(
            self.host, self.port, username="root", known_hosts=str(self.known), client_keys=[str(self.key)],
            config=None, agent_path=None,
        )  # fmt: skip


def make_box(mags: Installation, name: str, *options: str) -> Box:
    mags.cli("new", *options, name)
    with Mags(api_url=mags.url, api_token=mags.token) as api:
        access = api.enable_access(name, port=22)
    key, known = mags.home / f"{name}.key", mags.home / f"{name}.known"
    key.touch(mode=0o600)
    private = access["ssh_private_key"]
    assert private is not None
    key.write_text(private)
    known.write_text(f"[{access['ssh_host']}]:{access['ssh_port']} {access['ssh_host_key']}\n")
    return Box(name, access["ssh_host"], access["ssh_port"], key, known)


@pytest.fixture(scope="module")
def box(mags: Installation) -> Box:
    return make_box(mags, "box")


@pytest.fixture(scope="module")
def dozer(mags: Installation) -> Box:
    """Falls asleep soon."""
    return make_box(mags, "dozer", "--idle", str(IDLE_S))


def test_mags_ssh_runs_a_command_and_makes_the_sandbox(mags: Installation) -> None:
    done = mags.cli("ssh", "shell", "--", "echo out; echo err >&2; exit 5", check=False)
    assert (done.returncode, done.stdout) == (5, b"out\n")
    assert b"err" in done.stderr
    assert mags.out("ssh", "shell", "--", "cat", input=b"from stdin") == "from stdin"
    mags.cli("stop", "shell")


def test_a_session_outlives_further_ones_and_ends_when_its_key_is_removed(
    mags: Installation, box: Box, tmp_path: Path
) -> None:
    """What a connection may is looked at again when a key of the user's goes: of those, only its own ends."""
    pair = str(tmp_path / "own")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", pair], check=True)
    added = mags.json("ssh-key", "add", f"{pair}.pub")
    host, _, port = mags.ssh.partition(":")
    echo = "while read line; do echo $line; done"
    by_own_key = [
        "ssh", "-F", "none", "-i", pair, "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-p", port, f"box@{host}", echo,
    ]  # fmt: skip
    with (
        conversation([str(MAGS), "ssh", "box", "--", echo], mags.environment) as editor,
        conversation(by_own_key, os.environ) as other,
    ):
        try:
            for process in (editor, other):
                assert said(process, b"before") == b"before\n"
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                further = [pool.submit(mags.out, "ssh", "box", "--", "echo", str(number)) for number in range(10)]
            assert [one.result() for one in further] == [f"{number}\n" for number in range(10)]

            mags.cli("ssh-key", "remove", added["id"])

            assert other.stderr is not None
            assert b"opens nothing here any more" in other.stderr.read()
            assert other.wait(TIMEOUT) == 255
            assert said(editor, b"after") == b"after\n"
            assert editor.stdin is not None
            editor.stdin.close()
            assert editor.wait(TIMEOUT) == 0
        finally:
            editor.kill()
            other.kill()


def conversation(argv: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)


def said(process: subprocess.Popen[bytes], word: bytes) -> bytes:
    """What it answers to one line."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(word + b"\n")
    process.stdin.flush()
    return process.stdout.readline()


async def test_without_ssh_the_api_gives_a_shell_and_forwards_nothing(
    mags: Installation, box: Box, tmp_path: Path
) -> None:
    environment = {**mags.environment, "PATH": str(tmp_path), "TERM": "xterm"}

    def ssh(*words: str) -> subprocess.CompletedProcess[bytes]:
        argv = [str(MAGS), "ssh", "box", *words]
        return subprocess.run(argv, env=environment, input=b"in", capture_output=True, timeout=TIMEOUT, check=False)

    done = await asyncio.to_thread(ssh, "--", "cat; echo err >&2; exit 5")
    assert (done.returncode, done.stdout) == (5, b"in")
    assert b"There is no `ssh` here: going through the API" in done.stderr and b"err\n" in done.stderr
    refused = await asyncio.to_thread(ssh, "-L", "8000:localhost:80", "-N")
    assert refused.returncode == 125 and b"no port can be forwarded" in refused.stderr
    terminal = Terminal(33, 101)
    try:
        await terminal.start([MAGS, "ssh", "box"], environment=environment)
        await terminal.expect(PROMPT)
        terminal.type("stty size; test -t 0 && echo a terminal: $TERM\n")
        await terminal.expect(r"33 101\r\na terminal: xterm\r\n")
        terminal.type("exit 4\n")
        assert await terminal.wait() == 4
    finally:
        await terminal.close()


def test_a_vm_has_a_port_of_its_own_that_its_keys_open_and_no_others(mags: Installation, box: Box, dozer: Box) -> None:
    common = int(mags.ssh.rpartition(":")[2])
    assert len({box.port, dozer.port, common}) == 3
    assert box.out("id -un; hostname") == b"root\nmags-vm\n"
    box_by_another = Box(box.name, box.host, box.port, dozer.key, box.known)
    refused = box_by_another.ssh("true")
    assert (refused.returncode, refused.stdout) == (255, b"") and b"Permission denied" in refused.stderr


def test_scp_and_sftp_take_files_both_ways(box: Box, tmp_path: Path) -> None:
    there, back, again = tmp_path / "there", tmp_path / "back", tmp_path / "again"
    there.write_bytes(BODY)
    box.run("scp", str(there), f"root@{box.host}:/root/by scp")
    box.run("scp", f"root@{box.host}:/root/by scp", str(back))
    assert back.read_bytes() == BODY
    batch = f"put {there} by-sftp\nrename by-sftp renamed\nchmod 600 renamed\nget renamed {again}\nls -l\nrm renamed\n"
    box.run("sftp", "-b", "-", f"root@{box.host}:/root", stdin=batch.encode())
    assert again.read_bytes() == BODY
    assert box.out("ls /root") == b"by scp\n"


def test_rsync_keeps_directories_alike(box: Box, tmp_path: Path) -> None:
    """The VM gets the rsync of this machine."""
    program = shutil.which("rsync")
    assert program is not None
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    files = [program, *re.findall(r"(/\S+) \(0x", linked)]
    packed = subprocess.run(["tar", "-chPf", "-", *files], capture_output=True, check=True).stdout
    box.out("tar -x -C / -f -", stdin=packed)
    tree, back = tmp_path / "tree", tmp_path / "back"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "body").write_bytes(BODY)
    (tree / "script").write_text("echo hello")
    (tree / "script").chmod(0o755)
    (tree / "link").symlink_to("script")

    def rsync(*words: str | Path) -> bytes:
        shell = " ".join(["ssh", *box.options, "-p", str(box.port)])
        argv = ["rsync", "-ai", "--delete", "-e", shell, *words]
        return subprocess.run(argv, capture_output=True, timeout=TIMEOUT, check=True).stdout

    rsync(f"{tree}/", f"root@{box.host}:/root/tree/")
    assert box.out("cd /root/tree; readlink link; sh link") == b"script\nhello\n"
    (tree / "link").unlink()
    assert rsync(f"{tree}/", f"root@{box.host}:/root/tree/").splitlines()[0] == b"*deleting   link"
    rsync(f"root@{box.host}:/root/tree/", f"{back}/")
    assert (back / "deep" / "body").read_bytes() == BODY and (back / "script").stat().st_mode & 0o777 == 0o755


def test_ports_are_forwarded_one_by_one_and_by_socks(box: Box) -> None:
    box.out(SERVER)
    fixed, socks = free_port(), free_port()
    forwards = ["-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{fixed}:localhost:8080", "-D", f"127.0.0.1:{socks}"]
    argv = ["ssh", *box.options, *forwards, *box.there, "echo up; cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ssh:
        try:
            assert ssh.stdout is not None and ssh.stdout.readline() == b"up\n"
            curl = ["curl", "-sS", "--max-time", "60", "--noproxy", ""]
            plain = subprocess.run([*curl, f"http://127.0.0.1:{fixed}/"], capture_output=True, check=False)
            # The VM looks the name up: it is its own.
            by_socks = [*curl, "--socks5-hostname", f"127.0.0.1:{socks}", "http://mags-vm:8080/"]
            proxied = subprocess.run(by_socks, capture_output=True, check=False)
        finally:
            ssh.kill()
    assert (plain.stdout, proxied.stdout) == (b"from inside", b"from inside"), plain.stderr + proxied.stderr


async def test_the_environment_and_signals_reach_the_process(box: Box) -> None:
    greeted = await asyncio.to_thread(
        box.ssh, "-o", "SendEnv=GREETING", 'echo "$GREETING"', env={**os.environ, "GREETING": "hé llo"}
    )
    assert greeted.stdout.decode() == "hé llo\n"
    async with await box.connect() as connection:
        process = await connection.create_process(
            "trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.1; done"
        )
        assert await process.stdout.readline() == "ready\n"
        process.send_signal("USR1")
        assert await process.stdout.readline() == "got it\n"
        assert (await process.wait()).exit_status == 3
        killed = await connection.create_process("echo ready; exec sleep 1000")
        assert await killed.stdout.readline() == "ready\n"
        killed.send_signal("KILL")
        assert (await killed.wait()).exit_status == 128 + 9


def test_passwords_are_refused_and_guessing_ends(box: Box) -> None:
    with paramiko.Transport((box.host, box.port)) as transport:
        transport.start_client(timeout=60)
        for _ in range(6):
            with pytest.raises(paramiko.BadAuthenticationType):
                transport.auth_password("root", "letmein", fallback=False)
        with pytest.raises((paramiko.SSHException, EOFError)) as cut:
            transport.auth_password("root", "letmein", fallback=False)
        assert not isinstance(cut.value, paramiko.BadAuthenticationType)
        transport.join(60)
        assert not transport.is_active() and not transport.is_authenticated()


def test_paramiko_gets_a_shell_and_files(box: Box) -> None:
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(box.key.read_text()))
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(box.known))
        client.connect(box.host, box.port, "root", pkey=key, look_for_keys=False, allow_agent=False)
        _, stdout, _ = client.exec_command("echo hi; exit 3", timeout=60)
        assert stdout.read() == b"hi\n" and stdout.channel.recv_exit_status() == 3
        data = bytes(range(256)) * 2000
        with client.open_sftp() as sftp:
            with sftp.open("/root/blob", "wb") as file:
                file.write(data)
            with sftp.open("/root/blob", "rb") as file:
                assert file.read() == data
            assert "blob" in sftp.listdir("/root")


async def test_a_hundred_connections_are_served_and_one_more_is_told_why_not(box: Box) -> None:
    logging_in = asyncio.Semaphore(16)
    all_open, over = asyncio.Barrier(CONNECTIONS + 1), asyncio.Event()

    async def one(number: int) -> str:
        async with logging_in:
            connection = await connect_when_there_is_room(box)
        async with connection:
            process = await connection.create_process("echo ready; read word; echo $word")
            assert await process.stdout.readline() == "ready\n"
            await all_open.wait()
            process.stdin.write(f"{number}\n")
            answer = str(await process.stdout.readline())
            await over.wait()
        return answer

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(CONNECTIONS)]
        await all_open.wait()
        refused = await asyncio.to_thread(box.ssh, "true")
        over.set()
    assert [task.result() for task in tasks] == [f"{number}\n" for number in range(CONNECTIONS)]
    assert refused.returncode == 255
    assert f"Your address has {CONNECTIONS} connections already".encode() in refused.stderr
    async with await connect_when_there_is_room(box) as connection:
        assert (await connection.run("echo room again")).stdout == "room again\n"


async def connect_when_there_is_room(box: Box) -> asyncssh.SSHClientConnection:
    """The gateway learns of the end of a connection a moment later."""
    while True:
        try:
            return await box.connect()
        except asyncssh.DisconnectError as error:
            assert "connections already" in str(error)
            await asyncio.sleep(0.1)


async def test_an_upload_that_is_cut_leaves_no_process_and_nothing_that_was_not_sent(box: Box, tmp_path: Path) -> None:
    chunk = BODY[: 1 << 18]
    sent = kept = 0

    async def upload(file: asyncssh.SFTPClientFile) -> None:
        nonlocal sent, kept
        while True:
            sent += len(chunk)
            await file.write(chunk, kept)
            kept += len(chunk)

    connection = await box.connect()
    sftp = await connection.start_sftp_client()
    uploading = asyncio.create_task(upload(await sftp.open("/root/half", "wb")))
    while kept < 4 * len(chunk):
        assert not uploading.done()
        await asyncio.sleep(0.01)
    holders = await asyncio.to_thread(box.out, "ls -l /proc/[0-9]*/fd/* 2>/dev/null | grep /root/half")
    (pid,) = {match[1].decode() for match in re.finditer(rb"/proc/(\d+)/fd", holders)}

    connection.abort()

    with pytest.raises((asyncssh.Error, OSError)):
        await uploading
    gone = f"while test -d /proc/{pid}; do sleep 0.1; done; stat -c %s /root/half"
    assert kept <= int(await asyncio.to_thread(box.out, gone)) <= sent
    whole = tmp_path / "whole"
    whole.write_bytes(BODY)
    await asyncio.to_thread(box.run, "scp", str(whole), f"root@{box.host}:/root/half")
    assert await asyncio.to_thread(box.out, "cat /root/half") == BODY


async def test_an_open_session_keeps_a_vm_awake_and_its_end_lets_it_sleep(mags: Installation, dozer: Box) -> None:
    async def status() -> str:
        return str((await asyncio.to_thread(mags.json, "status", "dozer"))["status"])

    async with await dozer.connect() as connection:
        process = await connection.create_process("echo here; cat")
        assert await process.stdout.readline() == "here\n"
        silent_until = time.monotonic() + 2 * IDLE_S
        while time.monotonic() < silent_until:
            assert await status() == "running"
            await asyncio.sleep(0.2)
        process.stdin.write("still\n")
        assert await process.stdout.readline() == "still\n"
    async with asyncio.timeout(TIMEOUT):
        while await status() != "sleeping":
            await asyncio.sleep(0.2)
    assert await asyncio.to_thread(dozer.out, "echo awake") == b"awake\n"
