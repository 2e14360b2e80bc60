"""A sandbox by SSH, beside what the channel to a guest allows when nothing of ours is above it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from bench.floor import SPEC
from bench.server import milliseconds
from bench.table import Row, row
from mags.host.guest import Channel, Exec, Terminal
from tests.kit import sessions, vms

CONNECTIONS = 20
KEYS = 60
SIZE = 50 << 20
TRANSFERS = 3


async def measure(access: dict[str, Any]) -> list[Row]:
    """`access`: what the API answers to somebody who asks for the SSH access of a sandbox that is awake."""
    typed, up, down = await _channel()
    with sessions.folder() as folder:
        client = _Client(folder, access)
        connections = [client.ssh() for _ in range(CONNECTIONS)]
        keys = await client.type_keys()
        uploads, downloads = client.transfers()
    return [
        row("ssh: connect and run true", "ms", connections, goal=400),
        typed,
        row("a key typed by ssh, echoed", "ms", keys, goal=typed.median + 40, baseline=typed),
        up,
        row("sftp: 50 MB up", "MB/s", uploads, goal=0.5 * up.median, at_least=True, baseline=up),
        down,
        row("sftp: 50 MB down", "MB/s", downloads, goal=0.5 * down.median, at_least=True, baseline=down),
    ]


def _rate(begin: float) -> float:
    return SIZE / 1e6 / (time.perf_counter() - begin)


class _Client:
    """OpenSSH, with the key that the API gives out for one sandbox."""

    def __init__(self, folder: Path, access: dict[str, Any]) -> None:
        self._folder, self._access = folder, access
        (folder / "key").touch(mode=0o600)
        (folder / "key").write_text(access["ssh_private_key"])
        (folder / "known").write_text(f"* {access['ssh_host_key']}\n")
        self._options = ["-F", "none", "-i", str(folder / "key"), "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"]
        self._options += ["-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "BatchMode=yes"]
        self._place = f"{access['ssh_user']}@{access['ssh_host']}"

    def ssh(self) -> float:
        words = ["ssh", *self._options, "-p", str(self._access["ssh_port"]), self._place, "true"]
        begin = time.perf_counter()
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        return milliseconds(begin)

    def transfers(self) -> tuple[list[float], list[float]]:
        """MB/s up and down; connecting included."""
        there, back = self._folder / "there", self._folder / "back"
        there.write_bytes(os.urandom(SIZE))
        up = [self._sftp(f"put {there} /root/blob") for _ in range(TRANSFERS)]
        down = [self._sftp(f"get /root/blob {back}") for _ in range(TRANSFERS)]
        assert back.read_bytes() == there.read_bytes()
        return up, down

    def _sftp(self, command: str) -> float:
        words = ["sftp", *self._options, "-q", "-b", "-", "-P", str(self._access["ssh_port"]), self._place]
        begin = time.perf_counter()
        subprocess.run(words, check=True, input=command.encode(), stdout=subprocess.DEVNULL)
        return _rate(begin)

    async def type_keys(self) -> list[float]:
        access = self._access
        async with asyncssh.connect(
            access["ssh_host"],
            access["ssh_port"],
            username=access["ssh_user"],
            client_keys=[str(self._folder / "key")],
            known_hosts=str(self._folder / "known"),
            agent_path=None,
            config=None,
        ) as connection:
            async with connection.create_process("cat", term_type="xterm", encoding=None) as process:
                samples = []
                for _ in range(KEYS + 5):
                    begin = time.perf_counter()
                    process.stdin.write(b"x")
                    await process.stdout.readexactly(1)
                    samples.append(milliseconds(begin))
                process.terminate()
        return samples[5:]


async def _channel() -> tuple[Row, Row, Row]:
    """The same by the channel of a bare VM: a key, a file up, a file down."""
    async with _bare() as channel:
        keys = await _type_keys(channel)
        data = os.urandom(SIZE)
        up, down = [], []
        for _ in range(TRANSFERS):
            begin = time.perf_counter()
            await channel.write_file("/root/blob", _pieces(data))
            up.append(_rate(begin))
        for _ in range(TRANSFERS):
            begin = time.perf_counter()
            async with await channel.read_file("/root/blob") as reader:
                async for _piece in reader:
                    pass
            down.append(_rate(begin))
    return (
        row("a key typed by the guest channel, echoed", "ms", keys),
        row("guest channel: a file of 50 MB up", "MB/s", up),
        row("guest channel: a file of 50 MB down", "MB/s", down),
    )


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 64 << 10):
        yield data[at : at + (64 << 10)]


@asynccontextmanager
async def _bare() -> AsyncIterator[Channel]:
    vmm = await vms.open_vmm(await vms.open_images())
    await vmm.warm(SPEC)
    with sessions.folder() as folder:
        async with vms.cloned(vmm, folder, spec=SPEC) as vm, vms.running(vm) as running:
            yield running.channel


async def _type_keys(channel: Channel) -> list[float]:
    process = await channel.exec(Exec(argv=("cat",), terminal=Terminal(24, 80), stdin=True))
    samples = []
    for _ in range(KEYS + 5):
        begin = time.perf_counter()
        await process.write_stdin(b"x")
        async with asyncio.timeout(60):
            piece = await process.next_output()
        assert piece is not None
        samples.append(milliseconds(begin))
        process.acknowledge(piece.stream, piece.offset + len(piece.data))
    await process.release()
    return samples[5:]
