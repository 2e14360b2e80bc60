"""One script in a VM: what the guest is asked to run, and following it to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from mags.host.guest import Exec, Exit, Offsets, Process
from mags.protocol.guest import STDERR, STDOUT
from mags.protocol.messages import Script

WINDOW = 1 << 20
"""Bytes of each stream that the guest keeps until they are stored."""
BATCH = 512 << 10
"""Bytes in one message of output, at most."""
FLOOD, FLOOD_RATE = 256 << 10, 1 << 20
"""Bytes of output, and bytes a second of late, from which on a script is one that writes much."""
GATHER, GATHER_S, GATHER_ROUNDS = 256 << 10, 0.005, 4
"""Of such a one smaller messages wait for more, so long and so often: each costs us, JetStream and every reader about
the same, whatever its size."""
MAX_RUNS = 16
"""Changes between stdout and stderr in one batch; beyond, each stream is put together."""

FETCH = b"""\
f=$(mktemp) || exit 125
if command -v curl >/dev/null 2>&1; then
    curl -fsSL --retry 2 --max-time 120 -o "$f" -- "$1"
else
    wget -q -T 120 -O "$f" -- "$1"
fi || { echo "mags: the script could not be fetched from $1" >&2; rm -f "$f"; exit 125; }
exec /bin/sh "$f"
"""
"""Runs the script at the address that is its first argument. 125: it could not be fetched."""


def wish(script: Script) -> Exec | None:
    """What to run; None when the VM only comes up."""
    timeout_ms = 0 if script.timeout_s is None else script.timeout_s * 1000
    if script.script is not None:
        text = script.script.encode("utf-8", "surrogateescape")
        return Exec(script=text, environment=script.environment, timeout_ms=timeout_ms, window=WINDOW)
    if script.url is not None:
        return Exec(
            script=FETCH, argv=(script.url,), environment=script.environment, timeout_ms=timeout_ms, window=WINDOW
        )
    return None


Run = tuple[int, int, bytes]
"""Stream, offset of the first byte, bytes."""


class Sink(Protocol):
    """Where output is stored (output.OutputWriter is one)."""

    @property
    def position(self) -> tuple[int, int]: ...

    async def write(self, stream: int, offset: int, data: bytes) -> None: ...


async def follow(process: Process, writer: Sink, start: Offsets) -> Exit:
    """Store the output, from `start` on, until the process has ended. Raises ChannelClosed when the guest is gone."""
    taken = {STDOUT: start.stdout, STDERR: start.stderr}
    pace = Pace()
    while batch := await _batch(process, taken, pace):
        for stream, offset, data in batch:
            await writer.write(stream, offset, data)
            pace.count(len(data))
        stdout, stderr = writer.position
        process.acknowledge(STDOUT, min(stdout, taken[STDOUT]))
        process.acknowledge(STDERR, min(stderr, taken[STDERR]))
    return await process.wait()


class Pace:
    """How much a script writes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._total, self._recent, self._since = 0, 0, clock()
        self._rate = 0.0

    def count(self, size: int) -> None:
        """So many bytes more."""
        self._total += size
        self._recent += size
        elapsed = self._clock() - self._since
        if elapsed >= GATHER_S:
            self._rate = self._recent / elapsed
            self._recent, self._since = 0, self._clock()

    @property
    def floods(self) -> bool:
        return self._total >= FLOOD and self._rate >= FLOOD_RATE


async def _batch(process: Process, taken: dict[int, int], pace: Pace) -> list[Run]:
    """What has arrived, put together; waits for the first byte. Empty at the end."""
    runs: list[tuple[int, int, list[bytes]]] = []
    size = 0
    rounds = 0
    while True:
        piece = await process.next_output()
        if piece is None:
            break
        end = piece.offset + len(piece.data)
        taken[piece.stream] = end
        if runs and runs[-1][0] == piece.stream:
            runs[-1][2].append(piece.data)
        else:
            runs.append((piece.stream, piece.offset, [piece.data]))
        size += len(piece.data)
        if size >= BATCH:
            break
        if _all_taken(process, taken):
            if rounds == GATHER_ROUNDS or size >= GATHER or not pace.floods:
                break
            rounds += 1
            await asyncio.sleep(GATHER_S)
            if _all_taken(process, taken):
                break
    if len(runs) > MAX_RUNS:
        runs = [_together(stream, runs) for stream in (STDOUT, STDERR)]
    return [(stream, offset, b"".join(parts)) for stream, offset, parts in runs]


def _all_taken(process: Process, taken: dict[int, int]) -> bool:
    arrived = process.received
    return arrived.stdout <= taken[STDOUT] and arrived.stderr <= taken[STDERR]


def _together(stream: int, runs: list[tuple[int, int, list[bytes]]]) -> tuple[int, int, list[bytes]]:
    """All of one stream as one run. Both streams occur where this is used."""
    own = [(offset, parts) for number, offset, parts in runs if number == stream]
    return stream, own[0][0], [part for _, parts in own for part in parts]
