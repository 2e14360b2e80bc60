"""Commands as argument lists, with a deadline, their output bounded and their end certain.

    out = await run(["mkfs.ext4", "-q", path], timeout=60)

A command that fails raises `CommandFailed` with what it said; one that outlives its deadline is killed with its
whole process group and raises `CommandTimedOut`. Nothing is ever given to a shell.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OUTPUT_LIMIT = 8 << 20
"""Bytes of each output stream that are kept; the rest is read and dropped."""


class CommandError(Exception):
    """CommandError: a command could not do its work.

    CommandError
    ├── CommandMissing    the program is not installed
    ├── CommandFailed     it ended with another status than 0
    └── CommandTimedOut   it was killed at its deadline
    """


class CommandMissing(CommandError):
    def __init__(self, program: str) -> None:
        super().__init__(f"The program {program!r} is not installed or not on PATH.")
        self.program = program


class CommandFailed(CommandError):
    def __init__(self, argv: Sequence[str], status: int, stderr: str) -> None:
        said = stderr.strip().splitlines()[-5:]
        super().__init__(f"{argv[0]} ended with status {status}: {' | '.join(said) or 'it said nothing'}")
        self.argv, self.status, self.stderr = list(argv), status, stderr


class CommandTimedOut(CommandError):
    def __init__(self, argv: Sequence[str], timeout: float) -> None:
        super().__init__(f"{argv[0]} did not end within {timeout:g} s and was killed.")
        self.argv, self.timeout = list(argv), timeout


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left: its status and output (bytes as they came)."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


async def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    stdin: bytes | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Completed:
    """Run a command to its end. `timeout` in seconds; `env` replaces the whole environment."""
    words = [str(word) for word in argv]
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise CommandMissing(words[0]) from error
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(timeout):
            _, out, err, status = await asyncio.gather(
                _feed(process, stdin), _drain(process.stdout), _drain(process.stderr), process.wait()
            )
    except TimeoutError as error:
        await _end(process)
        raise CommandTimedOut(words, timeout) from error
    except BaseException:
        await _end(process)
        raise
    if check and status != 0:
        raise CommandFailed(words, status, (err or out).decode(errors="replace"))
    return Completed(status, out, err)


def inherited(*names: str) -> dict[str, str]:
    """These variables of our own environment, as far as they are set: for a command's `env`."""
    return {name: os.environ[name] for name in names if name in os.environ}


async def _feed(process: asyncio.subprocess.Process, data: bytes | None) -> None:
    if data is None or process.stdin is None:
        return
    try:
        process.stdin.write(data)
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass
    finally:
        process.stdin.close()


async def _drain(stream: asyncio.StreamReader) -> bytes:
    kept = bytearray()
    while chunk := await stream.read(1 << 16):
        if len(kept) < OUTPUT_LIMIT:
            kept += chunk
    return bytes(kept[:OUTPUT_LIMIT])


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await asyncio.shield(process.wait())
    # asyncio closes the pipes of a dead child only when somebody asks.
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
