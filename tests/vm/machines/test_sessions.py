"""Streaming sessions with a VM, through the client that control and edge use."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mags.hostclient import Session
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from tests.kit.host_world import HOST_ID, PATIENCE, Caller

pytestmark = pytest.mark.vm


async def begin(caller: Caller, vm_id: str, kind: Any, **wish: Any) -> Session:
    return await Session.open(
        caller.hosts, HOST_ID, m.Open(vm_id=vm_id, session_id=new_id(), kind=kind, **wish), timeout=PATIENCE
    )


async def rest(session: Session) -> tuple[bytes, bytes]:
    """Both streams to the end."""
    streams = {1: b"", 2: b""}
    async with asyncio.timeout(PATIENCE):
        async for frame in session:
            streams[frame.stream] += frame.data
    return streams[1], streams[2]


async def until(session: Session, word: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(PATIENCE):
        while word not in seen:
            frame = await session.read()
            assert frame is not None, seen
            seen += frame.data
    return seen


async def test_sessions_in_one_vm(caller: Caller) -> None:
    vm_id, _ = await caller.start(None, keep="stay")

    # A command, both ways, and its exit code.
    async with await begin(
        caller, vm_id, "exec", command="read x; echo got $x; echo e >&2; cat >/dev/null; exit 5"
    ) as s:
        await s.write(b"me\n")
        await s.eof()
        assert await rest(s) == (b"got me\n", b"e\n")
        assert s.end is not None and s.end.exit_code == 5

    # A terminal: its size, its resize, its signals.
    pty = m.Pty(rows=30, cols=100)
    command = "trap 'echo int' INT; stty size; read x; stty size; echo $TERM; while :; do sleep 0.1; done"
    async with await begin(caller, vm_id, "exec", command=command, pty=pty) as s:
        await until(s, b"30 100")
        await s.resize(40, 120)
        await s.write(b"\n")
        assert b"40 120" in await until(s, b"xterm-256color")
        await s.write(b"\x03")
        await until(s, b"int")
        await s.signal(9)
        await rest(s)
        assert s.end is not None and s.end.exit_code == 137

    # A login shell.
    async with await begin(caller, vm_id, "exec", command=None) as s:
        await s.write(b"echo $0; exit 4\n")
        out, _ = await rest(s)
        assert b"sh" in out and s.end is not None and s.end.exit_code == 4

    # What is not there says so, as in a shell.
    async with await begin(caller, vm_id, "exec", command=["no-such"]) as s:
        _, errors = await rest(s)
        assert errors.startswith(b"mags: no-such: not found in /") and s.end is not None and s.end.exit_code == 127
    async with await begin(caller, vm_id, "exec", command="true", user="ghost") as s:
        with pytest.raises(Problem, match="no such user: ghost"):
            await rest(s)

    # A client that goes: its process goes too.
    s = await begin(caller, vm_id, "exec", command="echo up; exec sleep 4321")
    await until(s, b"up")
    await s.close()
    async with asyncio.timeout(PATIENCE):
        while b"4321" in (await caller.exec(vm_id, "ps")).stdout:
            await asyncio.sleep(0.1)

    with pytest.raises(Problem) as caught:
        await begin(caller, vm_id, "exec", command=[])
    assert caught.value.code == "invalid"


async def test_files_travel_whole_or_not_at_all(caller: Caller) -> None:
    vm_id, _ = await caller.start(None, keep="stay")
    data = bytes(range(256)) * 16384  # more than both windows
    async with await begin(caller, vm_id, "write", path="/root/new/file", mode=0o751) as s:
        await s.write(data)
        await s.eof()
        await rest(s)
        assert s.end is not None and s.end.bytes == len(data)
    async with await begin(caller, vm_id, "read", path="/root/new/file") as s:
        assert (s.opened.size, s.opened.mode) == (len(data), 0o751)
        assert (await rest(s))[0] == data
    async with await begin(caller, vm_id, "read", path="/root/new/file", offset=len(data) - 3, window=2) as s:
        assert (await rest(s))[0] == data[-3:]

    s = await begin(caller, vm_id, "write", path="/root/new/file")
    await s.write(b"half")
    await s.close()
    assert (await caller.exec(vm_id, "ls /root/new; wc -c < /root/new/file")).stdout.split() == [
        b"file",
        str(len(data)).encode(),
    ]
    for kind, path, code in [("read", "/none", "not_found"), ("read", "/root", "conflict"), ("read", "x", "invalid")]:
        with pytest.raises(Problem) as caught:
            async with await begin(caller, vm_id, kind, path=path) as s:
                await rest(s)
        assert caught.value.code == code, path


async def test_connections_and_sftp_inside_the_vm(caller: Caller) -> None:
    vm_id, _ = await caller.start("nc -l -p 9000 -e cat >/dev/null 2>&1 &", keep="stay")
    async with await begin(caller, vm_id, "connect", port=9000, timeout_s=30) as s:  # until it listens
        await s.write(b"ping")
        assert await until(s, b"ping") == b"ping"
    with pytest.raises(Problem) as caught:
        await begin(caller, vm_id, "connect", port=9)
    assert caught.value.code == "conflict"
    async with await begin(caller, vm_id, "sftp") as s:
        await s.write(b"\0\0\0\x05\x01\0\0\0\x03")  # SSH_FXP_INIT, version 3
        assert (await until(s, b"\x02"))[4:9] == b"\x02\0\0\0\x03"


async def test_a_session_ends_with_its_vm(caller: Caller) -> None:
    vm_id, _ = await caller.start(None, keep="stay")
    async with await begin(caller, vm_id, "exec", command="echo up; sleep 1000") as s:
        await until(s, b"up")
        await caller.stop(vm_id)
        with pytest.raises(Problem) as caught:
            await rest(s)
        assert caught.value.code in ("gone", "guest_failed")
