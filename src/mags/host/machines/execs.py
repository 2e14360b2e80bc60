"""One command in a VM, its whole output in the answer."""

from __future__ import annotations

import asyncio

from mags.host.guest import Exec as Wish
from mags.host.guest import Exit, Process
from mags.host.machines.machine import Machine
from mags.protocol.errors import Problem
from mags.protocol.guest import STDOUT
from mags.protocol.messages import Exec, ExecResult

WINDOW = 512 << 10
MARGIN_S = 30.0
"""After the guest should have killed a command: how long its word is waited for."""
LIMIT = 10 << 20
"""Bytes of each stream, at most, whatever is asked for: more than that does not fit a message."""
LOGIN = (
    "/bin/sh",
    "-c",
    's=$(sed -n "s/^$(id -un):.*:\\([^:]*\\)$/\\1/p" /etc/passwd 2>/dev/null | head -n 1); '
    '[ -x "$s" ] || s=/bin/sh; exec "$s" -l',
)
"""The user's own shell, as a login shell."""


def words(command: str | list[str] | None) -> tuple[str, ...]:
    """The arguments to run. None: a login shell. Problem(invalid) for an empty list."""
    if command is None:
        return LOGIN
    if isinstance(command, str):
        return "/bin/sh", "-c", command
    if not command:
        raise Problem("invalid", "A command needs at least one word.")
    return tuple(command)


async def execute(machine: Machine, wish: Exec) -> ExecResult:
    """Problem, GuestError, ChannelClosed; a command that outlives `timeout_s` is killed: exit code 124."""
    limit = min(max(wish.limit, 0), LIMIT)
    async with machine.use() as cell:
        process = await cell.channel.exec(
            Wish(
                argv=words(wish.command),
                environment=wish.environment,
                cwd=wish.workdir or "",
                user=wish.user or "",
                stdin=bool(wish.stdin),
                timeout_ms=max(1, round(wish.timeout_s * 1000)),
                window=WINDOW,
            )
        )
        try:
            async with asyncio.timeout(wish.timeout_s + MARGIN_S):
                if not wish.stdin:
                    return await _collect(process, limit)
                feeding = asyncio.create_task(_feed(process, wish.stdin))
                try:
                    return await _collect(process, limit)
                finally:
                    feeding.cancel()
                    await asyncio.gather(feeding, return_exceptions=True)
        finally:
            await process.release()


async def _feed(process: Process, data: bytes) -> None:
    await process.write_stdin(data)
    await process.close_stdin()


async def _collect(process: Process, limit: int) -> ExecResult:
    kept = {True: bytearray(), False: bytearray()}
    truncated = False
    while (piece := await process.next_output()) is not None:
        process.acknowledge(piece.stream, piece.offset + len(piece.data))
        buffer = kept[piece.stream == STDOUT]
        room = limit - len(buffer)
        truncated |= len(piece.data) > room
        buffer += piece.data[: max(room, 0)]
    exit = await process.wait()
    check_started(exit)
    return ExecResult(
        exit_code=exit.exit_code,
        stdout=bytes(kept[True]),
        stderr=bytes(kept[False]) + last_words(exit),
        duration_ms=exit.duration_ms,
        truncated=truncated,
        timed_out=exit.timed_out,
    )


def last_words(exit: Exit) -> bytes:
    """What its output can't say: that there is no such program, or that it was killed for want of memory. A line."""
    return f"mags: {exit.message}\n".encode() if exit.message else b""


def check_started(exit: Exit) -> None:
    """Problem(invalid) when the guest could not even start it, for another reason than that there is no such program
    (which is exit code 127, as in a shell)."""
    if exit.error is not None and exit.exit_code != 127:
        raise Problem("invalid", f"The command can't be started: {exit.message or 'the guest refused'}.")
