"""Output: as entries, as events, as exact bytes; from the beginning, from anywhere, and when readers vanish."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from mags.protocol import subjects
from mags.sdk.frames import Decoder
from tests.integration.control.conftest import Installation, alone, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
DATABASES = ["sqlite"]

FRAMES = {"Accept": "application/vnd.mags.frames"}


def parse(body: bytes) -> list[tuple[int, bytes]]:
    frames = []
    while body:
        stream, size = struct.unpack_from(">BI", body)
        frames.append((stream, body[5 : 5 + size]))
        body = body[5 + size :]
    return frames


def joined(frames: list[tuple[int, bytes]], stream: int) -> bytes:
    return b"".join(data for number, data in frames if number == stream)


async def frames_of(mags: Installation, reference: str, **query: Any) -> list[tuple[int, bytes]]:
    answer = await mags.api.get(f"/mags-jobs/{reference}/logs", params={"follow": 1, **query}, headers=FRAMES)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/vnd.mags.frames")
    return parse(answer.content)


async def entries(mags: Installation, reference: str, **query: Any) -> list[dict[str, Any]]:
    answer = await mags.api.get(f"/mags-jobs/{reference}/logs", params=query)
    assert answer.status_code == 200, answer.text
    logs = answer.json()["logs"]
    assert isinstance(logs, list)
    return logs


async def test_followed_frames_are_the_exact_bytes_and_then_the_end(mags: Installation) -> None:
    await mags.host()
    request_id = await mags.submit("printf 'a\\000b\\377'; sleep 0.2; printf 'no newline' >&2; exit 9")
    frames = await frames_of(mags, request_id)
    assert joined(frames, 1) == b"a\0b\xff" and joined(frames, 2) == b"no newline"
    assert frames[-1][0] == 0
    assert json.loads(frames[-1][1]) == {"exit_code": 9, "error": None, "status": "error"}
    assert (await mags.status(request_id))["status"] == "error", "who asks after the end sees it recorded"


async def test_reading_goes_on_where_it_was_cut(mags: Installation) -> None:
    await mags.host()
    body = await mags.run("printf 0123456789; printf abcdef >&2")
    frames = await frames_of(mags, body["request_id"], stdout_offset=4, stderr_offset=6)
    assert (joined(frames, 1), joined(frames, 2)) == (b"456789", b"")


async def test_much_output_comes_whole_and_in_order(mags: Installation) -> None:
    await mags.host()
    request_id = await mags.submit(
        "i=0; while [ $i -lt 12 ]; do head -c 1000000 /dev/zero | tr '\\0' $i; i=$((i+1)); done"
    )
    live = joined(await frames_of(mags, request_id), 1)
    expected = b"".join(str(number)[:1].encode() * 1_000_000 for number in range(12))
    assert hashlib.sha256(live).digest() == hashlib.sha256(expected).digest()
    assert joined(await frames_of(mags, request_id), 1) == expected, "and again from what is stored"


async def test_a_slow_reader_loses_nothing(mags: Installation) -> None:
    await mags.host()
    size = 40_000_000
    request_id = await mags.submit(f"head -c {size} /dev/zero")
    got = 0
    async with mags.api.stream("GET", f"/mags-jobs/{request_id}/logs?follow=1", headers=FRAMES) as answer:
        chunks = answer.aiter_raw()
        first = await anext(chunks)
        await mags.reaches(request_id, "completed")  # everything has been said while we did not listen
        body = first + b"".join([chunk async for chunk in chunks])
    got = sum(len(data) for stream, data in parse(body) if stream == 1)
    assert got == size


async def test_lines_are_entries_whatever_the_chunks(mags: Installation) -> None:
    await mags.host()
    body = await mags.run("printf 'one\\ntw'; sleep 0.1; printf 'o\\r\\n\\nbad \\377\\n'; printf 'rest'")
    assert [entry["message"] for entry in await entries(mags, body["request_id"])] == [
        "one",
        "two",
        "",
        "bad \ufffd",
        "rest",
    ]


async def test_tail_and_since_leave_out_what_came_before(mags: Installation) -> None:
    await mags.host()
    body = await mags.run("echo a; sleep 0.05; echo b; sleep 0.05; echo c")
    request_id = body["request_id"]
    everything = await entries(mags, request_id)
    assert [entry["message"] for entry in everything] == ["a", "b", "c"]
    assert [entry["message"] for entry in await entries(mags, request_id, tail=2)] == ["b", "c"]
    assert await entries(mags, request_id, tail=0) == []
    since = await entries(mags, request_id, since=everything[1]["timestamp"])
    assert [entry["message"] for entry in since] == ["b", "c"]
    assert (await mags.api.get(f"/mags-jobs/{request_id}/logs?since=yesterday")).status_code == 422


async def test_events_come_line_by_line_and_go_on_behind_the_last_one(mags: Installation) -> None:
    await mags.host()
    request_id = await mags.submit("echo a; echo b >&2; sleep 0.1; echo c; exit 2")
    answer = await mags.api.get(f"/mags-jobs/{request_id}/logs", headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in answer.text.strip().split("\n\n")]
    end = events.pop()
    assert end["event"] == "end" and json.loads(end["data"])["exit_code"] == 2
    said = [(json.loads(event["data"])["stream"], json.loads(event["data"])["message"]) for event in events]
    assert sorted(said) == [("stderr", "b"), ("stdout", "a"), ("stdout", "c")]
    first = next(event for event in events if json.loads(event["data"])["message"] == "a")
    again = await mags.api.get(f"/mags-jobs/{request_id}/logs?follow=1", headers={"Last-Event-ID": first["id"]})
    messages = [
        json.loads(line[6:])["message"] for line in again.text.splitlines() if line.startswith('data: {"timestamp"')
    ]
    assert "a" not in messages and "c" in messages


async def test_a_follower_may_begin_near_the_end(mags: Installation) -> None:
    await mags.host()
    release = mags.folder / "release"
    request_id = await mags.submit(
        f"echo a; echo b; echo c; printf d; while [ ! -e {release} ]; do sleep 0.02; done; echo e"
    )
    async with asyncio.timeout(60):
        while [entry["message"] for entry in await entries(mags, request_id)] != ["a", "b", "c", "d"]:
            pass
    messages = []
    async with mags.api.stream("GET", f"/mags-jobs/{request_id}/logs?follow=1&tail=2") as answer:
        async for line in answer.aiter_lines():
            if line.startswith('data: {"timestamp"'):
                messages.append(json.loads(line[6:])["message"])
                if messages == ["b", "c"]:
                    release.touch()
    assert messages == ["b", "c", "de"]


async def test_an_answer_is_bounded_and_says_so(mags: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mags.control.jobs.logs.MAX_TEXT", 10)
    await mags.host()
    body = await mags.run("echo aaaaa; echo bbbbb; echo ccccc")
    answer = (await mags.api.get(f"/mags-jobs/{body['request_id']}/logs")).json()
    assert [entry["message"] for entry in answer["logs"]] == ["bbbbb", "ccccc"] and answer["truncated"]


async def test_output_that_is_no_longer_kept_is_said_to_be_missing(tmp_path: Path) -> None:
    async with alone(tmp_path) as mags:
        jetstream = mags.world.jetstream
        config = (await jetstream.stream_info(subjects.OUTPUT_STREAM)).config
        assert (config.max_age, config.max_bytes) == (7 * 86400, 4 << 30)
        assert (config.retention, config.discard, config.storage) == ("limits", "old", "file")
        assert config.max_age == subjects.OUTPUT_MAX_AGE_S and config.max_bytes == subjects.OUTPUT_MAX_BYTES
        await jetstream.update_stream(config, max_bytes=1 << 20)
        await mags.host()
        old = await mags.run("echo old")
        size = 4_000_000
        body = await mags.run(f"echo first; head -c {size} /dev/zero | tr '\\0' x; echo; echo last")
        request_id = body["request_id"]
        total = len("first\n") + size + len("\nlast\n")

        answer = (await mags.api.get(f"/mags-jobs/{request_id}/logs")).json()
        notice, *_, last = answer["logs"]
        assert answer["truncated"] and last["message"] == "last"
        found = re.fullmatch(r"\((\d+) bytes of stdout that were here are no longer kept.\)", notice["message"])
        assert notice["stream"] == "system" and found is not None and int(found[1]) > size - (1 << 20)

        frames = await frames_of(mags, request_id)
        there = joined(frames, 1)
        assert frames[0] == (4, json.dumps({"stream": 1, "bytes": total - len(there)}, separators=(",", ":")).encode())
        assert int(found[1]) == total - len(there) and there.endswith(b"x\nlast\n")
        decoder = Decoder()
        chunks = list(decoder.feed(b"".join(struct.pack(">BI", number, len(data)) + data for number, data in frames)))
        assert decoder.offsets[1] == total and decoder.ended and b"no longer kept" in getattr(chunks[0], "data", b"")
        assert joined(await frames_of(mags, request_id, stdout_offset=total - 5), 1) == b"last\n"

        events = await mags.api.get(f"/mags-jobs/{request_id}/logs", headers={"Accept": "text/event-stream"})
        assert "no longer kept" in events.text.partition("\n\n")[0] and "event: end" in events.text

        nothing = (await mags.api.get(f"/mags-jobs/{old['request_id']}/logs")).json()
        assert nothing == {"logs": [], "truncated": True}
        frames = await frames_of(mags, old["request_id"])
        assert frames[0] == (3, b"(The output is no longer kept.)\n") and json.loads(frames[-1][1])["exit_code"] == 0


async def test_a_follower_of_a_waiting_job_gets_all_of_it(mags: Installation) -> None:
    host = await mags.host()
    host.slow["start"] = 0.7
    try:
        request_id = await mags.submit("echo late")
        frames = await frames_of(mags, request_id)
    finally:
        host.slow.clear()
    assert joined(frames, 1) == b"late\n"


async def test_following_a_sandbox_without_a_script_ends(mags: Installation) -> None:
    await mags.host()
    request_id = await mags.submit("sleep infinity", persistent=True)
    frames = await frames_of(mags, request_id)
    assert json.loads(frames[-1][1])["status"] == "running"


async def test_a_client_that_vanishes_leaves_nothing_behind(mags: Installation) -> None:
    await mags.host()
    request_id = await mags.submit("sleep 300", name="vanish")
    await mags.reaches(request_id, "running")
    subscriptions = len(mags.world.connection._subs)
    for accept in ("application/vnd.mags.frames", "text/event-stream"):
        task = asyncio.create_task(mags.api.get(f"/mags-jobs/{request_id}/logs?follow=1", headers={"Accept": accept}))
        await until(lambda: len(mags.world.connection._subs) > subscriptions)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: len(mags.world.connection._subs) == subscriptions)
    await mags.api.post(f"/mags-jobs/{request_id}/stop")
