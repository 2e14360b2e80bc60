"""The agent as an ordinary process, built with AddressSanitizer and UBSan, and what a host does with it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from mags.host.guest import Channel, Exec, Exit, Process

GUEST = Path(__file__).resolve().parents[2] / "guest"
TIMEOUT = 60.0


def build(target: str) -> Path:
    """Make a target of guest/Makefile, one at a time; what it made."""
    make = ["flock", str(GUEST), "make", "-s", "-C", str(GUEST), target]
    made = subprocess.run(make, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return GUEST / target


@dataclass(slots=True)
class Agent:
    """A running agent; hosts come and go on its socket."""

    path: Path
    pid: int

    async def connect(self) -> Channel:
        return await Channel.connect(self.path, timeout=TIMEOUT)


async def _listening(path: Path) -> None:
    async with asyncio.timeout(TIMEOUT):
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                _, writer = await asyncio.open_unix_connection(str(path))
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def serving(program: Path, directory: Path, *options: str) -> AsyncIterator[Agent]:
    """An agent until the end of the block; it must have ended cleanly, with nothing leaked or overrun."""
    path = directory / "agent.sock"
    errors = (directory / "agent.err").open("w+b")
    child = await asyncio.create_subprocess_exec(
        str(program), "--serve", str(path), *options, stdin=subprocess.DEVNULL, stderr=errors
    )
    try:
        await _listening(path)
        yield Agent(path, child.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(child.wait(), TIMEOUT)
        except TimeoutError:
            child.kill()
            code = await child.wait()
        errors.seek(0)
        report = errors.read().decode(errors="replace")
        errors.close()
    assert code == 0, report
    assert "Sanitizer" not in report and "runtime error" not in report, report


@dataclass(slots=True)
class Outcome:
    """A process that has ended, and what it wrote."""

    exit: Exit
    stdout: bytes
    stderr: bytes


async def collect(process: Process) -> Outcome:
    """Take all output and release the process."""
    pieces: dict[int, list[bytes]] = {1: [], 2: [], 3: []}
    async with asyncio.timeout(TIMEOUT):
        while (output := await process.next_output()) is not None:
            pieces[output.stream].append(output.data)
            process.acknowledge(output.stream, output.offset + len(output.data))
        ended = await process.wait()
    await process.release()
    return Outcome(ended, b"".join(pieces[1]), b"".join(pieces[2]))


async def run(channel: Channel, wish: Exec) -> Outcome:
    return await collect(await channel.exec(wish))


async def shell(channel: Channel, script: str) -> str:
    """The output of a script that must succeed."""
    outcome = await run(channel, Exec(script=script.encode()))
    assert outcome.exit.code == 0, outcome
    return outcome.stdout.decode()


async def read_until(process: Process, token: bytes) -> bytes:
    """Output of stdout up to and including the token."""
    seen = b""
    async with asyncio.timeout(TIMEOUT):
        while token not in seen:
            output = await process.next_output()
            assert output is not None, seen
            process.acknowledge(output.stream, output.offset + len(output.data))
            seen += output.data
    return seen
