"""A job's output over HTTP: entries, server-sent events, or the exact bytes in frames (docs/exec-websocket.md)."""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from mags.control.db import now_ms
from mags.control.http.times import moment
from mags.control.jobs.lines import NAMES, SYSTEM, Line, Lines, Newest, encode_positions
from mags.control.jobs.output import OutputReader, Quiet
from mags.control.lifecycles.notices import wait
from mags.control.lifecycles.world import World
from mags.control.models import Job
from mags.control.records import jobs
from mags.protocol.errors import Problem
from mags.protocol.messages import Output, OutputEnd

MAX_ENTRIES = 50_000
MAX_TEXT = 32 << 20
"""Bytes of text in one answer, or in the lines with which a follower begins; older ones are left out."""
NOT_KEPT = b"(The output is no longer kept.)\n"
FRAMES = "application/vnd.mags.frames"
GAP = 4
"""Number of the frames that say how many bytes of a stream are missing."""
KEEP_ALIVE = 15.0
RECORD_PATIENCE = 5.0
"""Seconds that the record of a script's end may come later than its output's end."""
AWAY_PATIENCE = 30.0
"""Seconds of trouble with the messages before a follower is given up."""

_json = msgspec.json.Encoder()


def entry(line: Line) -> dict[str, Any]:
    stream = NAMES[line.stream]
    return {
        "timestamp": moment(line.at_ms),
        "level": "error" if line.stream == 2 else "info",
        "message": line.text,
        "stream": stream,
    }


async def snapshot(world: World, job: Job, *, since_ms: int | None, tail: int | None) -> dict[str, Any]:
    """The last entries: at most 50,000, and 32 MiB of text. `truncated`: there were more, or some are gone."""
    kept: Newest[Line] = Newest(MAX_ENTRIES if tail is None else tail, MAX_TEXT)
    lines = Lines()
    nothing = True
    async with aclosing(OutputReader(world.connection, job.id).stored()) as stored:
        async for value in stored:
            nothing = False
            if isinstance(value, Output):
                for line in lines.feed(value.stream, value.offset, value.data, value.at_ms):
                    if since_ms is None or line.at_ms >= since_ms:
                        kept.add(line, len(line.text))
    for line in lines.rest():
        if since_ms is None or line.at_ms >= since_ms:
            kept.add(line, len(line.text))
    gone = lines.incomplete or (nothing and _ended_itself(job))
    truncated = kept.too_large or (kept.too_many and tail is None) or gone
    return {"logs": [entry(line) for line in kept], "truncated": truncated}


def _ended_itself(job: Job) -> bool:
    """So that its output had an end, if nothing else."""
    return job.exit_code is not None


async def _following(
    world: World, job: Job, positions: dict[int, int] | None
) -> AsyncGenerator[Output | OutputEnd | Quiet, None]:
    """The reader's values, across short troubles; ends with OutputEnd also when no host will ever send one."""
    reader = OutputReader(world.connection, job.id, positions)
    trouble = 0.0
    silent_looks = 0
    nothing = not any(reader.positions.values())
    while True:
        try:
            async with aclosing(reader.follow()) as source:
                async for value in source:
                    trouble = 0.0
                    if isinstance(value, Quiet):
                        silent_looks += 1
                        end = await _over_without_end(world, job) if silent_looks > 1 else None
                        if end is not None:
                            if nothing and end.exit_code is not None:
                                yield Output(stream=SYSTEM, offset=0, data=NOT_KEPT, at_ms=now_ms())
                            yield end
                            return
                    else:
                        silent_looks, nothing = 0, False
                    yield value
                    if isinstance(value, OutputEnd):
                        return
        except Problem:
            trouble += 1.0
            if trouble > AWAY_PATIENCE:
                raise
            yield Quiet(trouble)
            with world.notices.watch(job.id) as event:
                await wait(event, 1.0)


async def _over_without_end(world: World, job: Job) -> OutputEnd | None:
    """For a job that is over (or has no script), although its output has no end: nothing more will come."""
    async with world.db.read() as session:
        now = await jobs.find(session, job.owner_id, job.id)
    if now is None:
        return OutputEnd(error="The job is gone.")
    no_script = now.script is None and now.script_url is None and now.status != "pending"
    if now.completed_ms is not None or now.ended_ms is not None or no_script:
        return OutputEnd(exit_code=now.exit_code, error=now.error)
    return None


async def _final(world: World, job: Job, end: OutputEnd) -> bytes:
    """`exit_code`, `error` and `status` once the end is recorded, so that who asks next sees the same."""
    with world.notices.watch(job.id) as event:
        patience = RECORD_PATIENCE
        while True:
            async with world.db.read() as session:
                now = await jobs.end_of(session, job.owner_id, job.id)
            if now is None or now.ended_ms is not None or now.completed_ms is not None or patience <= 0:
                break
            await wait(event, 0.25)
            patience -= 0.25
    code = end.exit_code if now is None or now.exit_code is None else now.exit_code
    error = end.error if now is None or now.error is None else now.error
    status = now.status if now is not None else "error"
    return _json.encode({"exit_code": code, "error": error, "status": status})


async def frames(world: World, job: Job, positions: dict[int, int]) -> AsyncGenerator[bytes, None]:
    """[1 byte stream][4 bytes length][data]..., at last stream 0 with JSON. Stream 4 stands for bytes that are gone."""
    quiet = 0.0
    expected = dict(positions)
    async with aclosing(_following(world, job, positions)) as source:
        async for value in source:
            if isinstance(value, Output):
                quiet = 0.0
                if (missing := value.offset - expected[value.stream]) > 0:
                    gap = _json.encode({"stream": value.stream, "bytes": missing})
                    yield struct.pack(">BI", GAP, len(gap)) + gap
                expected[value.stream] = value.offset + len(value.data)
                yield struct.pack(">BI", value.stream, len(value.data)) + value.data
            elif isinstance(value, OutputEnd):
                final = await _final(world, job, value)
                yield struct.pack(">BI", 0, len(final)) + final
            elif value.seconds - quiet >= KEEP_ALIVE - 5:
                quiet = value.seconds
                yield struct.pack(">BI", 3, 0)


async def events(
    world: World, job: Job, positions: dict[int, int], *, since_ms: int | None, tail: int | None = None
) -> AsyncGenerator[bytes, None]:
    """Server-sent events, one a line (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    `tail`: of the lines that are there already only the last so many.
    """
    lines = Lines(positions)
    if tail is not None:
        kept: Newest[bytes] = Newest(tail, MAX_TEXT)
        reader = OutputReader(world.connection, job.id, positions)
        async with aclosing(reader.stored()) as stored:
            async for there in stored:
                if isinstance(there, Output):
                    for line in lines.feed(there.stream, there.offset, there.data, there.at_ms):
                        if since_ms is None or line.at_ms >= since_ms:
                            event = _event(line, lines)
                            kept.add(event, len(event))
        positions = reader.positions
        yield b"".join(kept)
    quiet = 0.0
    async with aclosing(_following(world, job, positions)) as source:
        async for value in source:
            if isinstance(value, Output):
                quiet = 0.0
                chunk = b"".join(
                    _event(line, lines)
                    for line in lines.feed(value.stream, value.offset, value.data, value.at_ms)
                    if since_ms is None or line.at_ms >= since_ms
                )
                if chunk:
                    yield chunk
            elif isinstance(value, OutputEnd):
                rest = b"".join(_event(line, lines) for line in lines.rest())
                yield rest + b"event: end\ndata: " + await _final(world, job, value) + b"\n\n"
            elif value.seconds - quiet >= KEEP_ALIVE - 5:
                quiet = value.seconds
                yield b": alive\n\n"


def _event(line: Line, lines: Lines) -> bytes:
    return f"id: {encode_positions(lines.positions)}\ndata: ".encode() + _json.encode(entry(line)) + b"\n\n"
