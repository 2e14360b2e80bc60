"""The monitor's client against a scripted QEMU at the other end of a socket pair."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mags.host.vmm.qemu.answers import Status
from mags.host.vmm.qemu.qmp import EVENT_LIMIT, LINE_LIMIT, Qmp, QmpClosed, QmpError, QmpTimeout
from tests.kit.monitor import Qemu, monitored


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Qmp, Qemu]]:
    qmp, qemu = monitored()
    yield qmp, qemu
    await qmp.aclose()
    qemu.socket.close()


async def test_answers_find_their_commands(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    first = asyncio.ensure_future(qmp.execute("query-status"))
    second = asyncio.ensure_future(qmp.execute("block_resize", node_name="work", size=5))
    one, two = await qemu.command(), await qemu.command()
    assert (one["execute"], two["arguments"]) == ("query-status", {"node-name": "work", "size": 5})
    await qemu.say(event="STOP", data={})
    await qemu.say(id=two["id"], **{"return": {}})
    await qemu.say(id=999, **{"return": "nobody asked"})
    await qemu.say(id=one["id"], **{"return": {"status": "running"}})
    assert (await first, await second) == ({"status": "running"}, {})


async def test_a_refusal_is_an_error(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    asking = asyncio.ensure_future(qmp.execute("cont"))
    number = (await qemu.command())["id"]
    await qemu.say(id=number, error={"class": "GenericError", "desc": "Resetting the Virtual Machine is required"})
    with pytest.raises(QmpError, match="QEMU refused cont: Resetting") as caught:
        await asking
    assert caught.value.kind == "GenericError"


async def test_messages_of_other_kinds_are_passed_over(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    with qmp.events("STOP") as events:
        await qemu.say(QMP={"version": {}, "capabilities": ["oob"]})
        await qemu.say(event="STOP")
        assert await qmp.first(events, timeout=30) == {"event": "STOP", "data": {}}


async def test_events_reach_those_who_listen(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    with qmp.events("RESUME", "SHUTDOWN") as some, qmp.events("STOP") as stops:
        for name in ("STOP", "RESUME", "SHUTDOWN"):
            await qemu.say(event=name, data={"of": name})
        assert [(await qmp.first(some, timeout=30))["event"] for _ in range(2)] == ["RESUME", "SHUTDOWN"]
        assert (await qmp.first(stops, timeout=30))["data"] == {"of": "STOP"}
        with pytest.raises(QmpTimeout):
            await qmp.first(stops, timeout=0.01)


async def test_a_command_that_is_not_answered_ends_at_its_deadline(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    with pytest.raises(QmpTimeout, match="stop within"):
        await qmp.execute("stop", timeout=0.01)
    late = (await qemu.command())["id"]
    asking = asyncio.ensure_future(qmp.execute("cont"))
    number = (await qemu.command())["id"]
    await qemu.say(id=late, **{"return": "late"})
    await qemu.say(id=number, **{"return": "in time"})
    assert await asking == "in time"


async def test_the_end_of_qemu_ends_everything_that_waits(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    with qmp.events("STOP") as events:
        asking = asyncio.ensure_future(qmp.execute("stop"))
        await qemu.command()
        qemu.socket.close()
        for waiting in (asking, anext(events)):
            with pytest.raises(QmpClosed, match="QEMU ended"):
                await waiting
    assert "QEMU ended" in await qmp.closed
    with pytest.raises(QmpClosed):
        await qmp.execute("cont")
    with qmp.events("STOP") as later, pytest.raises(QmpClosed):
        await anext(later)


NONSENSE = [
    b"not json",
    b"[1, 2]",
    b"7",
    b"\xff\xfe",
    b'{"event": "STOP"}x',
    b'{"event": ["x"]}',
    b'{"event": "STOP", "data": 1}',
    b'{"return": 1}',
    b'{"id": "x", "return": 1}',
    b'{"id": {}, "return": 1}',
    b'{"id": 1, "error": 3}',
    b"[" * 200_000,
    b'{"event": "STOP", "data": {"x": "' + b"x" * EVENT_LIMIT + b'"}}',
]


@pytest.mark.parametrize("line", NONSENSE, ids=lambda line: line[:40].decode(errors="replace"))
async def test_nonsense_ends_the_connection(pair: tuple[Qmp, Qemu], line: bytes) -> None:
    qmp, qemu = pair
    await qemu.write(line + b"\n")
    async with asyncio.timeout(30):
        assert "broke the protocol" in await qmp.closed


async def test_an_answer_of_another_shape_ends_the_connection(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    asking = asyncio.ensure_future(qmp.ask("query-status", Status))
    await qemu.answer("query-status", {"status": "running", "running": True, "more": [1]})
    assert await asking == Status("running")
    asking = asyncio.ensure_future(qmp.ask("query-status", Status))
    await qemu.answer("query-status", {"status": ["running"]})
    with pytest.raises(QmpClosed, match="broke the protocol: its answer to query-status is none"):
        await asking
    with pytest.raises(QmpClosed):
        await qmp.execute("cont")


async def test_a_line_without_an_end_ends_the_connection(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    flood = asyncio.ensure_future(qemu.write(b"x" * (2 * LINE_LIMIT)))
    async with asyncio.timeout(30):
        assert "line without an end" in await qmp.closed
    await asyncio.gather(flood, return_exceptions=True)


async def test_descriptors_travel_with_a_command(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    reader, writer = os.pipe()
    asking = asyncio.ensure_future(qmp.execute("add-fd", fds=[writer], opaque="x"))
    while not asking.done():
        try:
            line, fds, _, _ = socket.recv_fds(qemu.socket, 65536, 4)
        except BlockingIOError:
            await asyncio.sleep(0.01)
            continue
        await qemu.say(id=json.loads(line)["id"], **{"return": {"fdset-id": 3}})
        await asking
    assert (await asking)["fdset-id"] == 3
    os.write(fds[0], b"through")
    assert os.read(reader, 10) == b"through"
    for descriptor in (reader, writer, *fds):
        os.close(descriptor)


async def test_a_monitor_that_takes_no_commands_does_not_harm_who_gets_its_number(pair: tuple[Qmp, Qemu]) -> None:
    qmp, qemu = pair
    await asyncio.sleep(0)  # it listens
    number = qmp._socket.fileno()
    qemu.socket.shutdown(socket.SHUT_RD)
    with pytest.raises(QmpClosed, match="does not take commands"):
        await qmp.execute("stop")
    while qmp._socket.fileno() >= 0:
        await asyncio.sleep(0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert number in (ours.fileno(), theirs.fileno())
        for reader, writer in ((ours, theirs), (theirs, ours)):
            reader.setblocking(False)
            reading = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(reader, 10))
            await asyncio.sleep(0)
            writer.send(b"through")
            assert await reading == b"through"


async def test_a_monitor_that_is_not_there_is_an_error(tmp_path: Any) -> None:
    with pytest.raises(QmpClosed, match="cannot be reached"):
        await Qmp.connect(tmp_path / "missing.sock")
