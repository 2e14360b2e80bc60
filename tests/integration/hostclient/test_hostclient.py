"""Requests, sessions and presence over a real NATS server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from mags.hostclient import HostClient, Hosts, HostState, Session, presence
from mags.kit.nats import connect, settle
from mags.protocol import messages, subjects
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from mags.protocol.messages import Data, Done, Empty, Open, Opened, Presence, SessionEnd
from tests.kit.nats_server import nats_server
from tests.kit.scripted_edge_host import ScriptedHost

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 60.0


@dataclass
class Line:
    """Two connections to one server: `ours`, and the one of what answers us."""

    url: str
    ours: Client
    theirs: Client
    client: HostClient
    host: ScriptedHost

    async def open(self, **wish: object) -> Session:
        return await Session.open(self.client, "h1", Open(vm_id="vm", session_id=new_id(), **wish))  # type: ignore[arg-type]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def line(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    folder: Path = tmp_path_factory.mktemp("line")
    async with nats_server(folder) as url:
        ours, theirs = await connect(url, name="ours"), await connect(url, name="theirs")
        host = ScriptedHost(theirs, folder)
        host.vm("vm")
        await host.start()
        await settle(theirs)
        try:
            yield Line(url, ours, theirs, HostClient(ours), host)
        finally:
            await host.aclose()
            await ours.close()
            await theirs.close()


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_host_that_does_not_listen_is_unavailable_and_nothing_was_sent(line: Line) -> None:
    with pytest.raises(Problem) as refused:
        await line.client.request("nobody", "list", Empty(), Done, timeout=PATIENCE)
    assert refused.value.code == "unavailable"


async def test_an_answer_that_does_not_come_leaves_the_outcome_unknown(line: Line) -> None:
    async def ignore(message: Msg) -> None:
        pass

    subscription = await line.theirs.subscribe(subjects.rpc("mute", "list"), cb=ignore)
    await settle(line.theirs)
    with pytest.raises(Problem) as refused:
        await line.client.request("mute", "list", Empty(), Done, timeout=0.1)
    assert refused.value.code == "outcome_unknown"
    await subscription.unsubscribe()


async def test_nobody_waits_for_a_host_that_is_lost(line: Line) -> None:
    asked = asyncio.Event()

    async def on_request(_: Msg) -> None:
        asked.set()

    subscription = await line.theirs.subscribe(subjects.rpc("frozen", "list"), cb=on_request)
    await settle(line.theirs)
    waiting = asyncio.create_task(line.client.request("frozen", "list", Empty(), Done, timeout=600))
    await asked.wait()
    line.client.give_up("another")
    line.client.give_up("frozen")
    with pytest.raises(Problem, match="lost") as refused:
        async with asyncio.timeout(PATIENCE):
            await waiting
    assert refused.value.code == "outcome_unknown"
    await subscription.unsubscribe()


async def test_the_problem_of_a_host_is_the_callers(line: Line) -> None:
    with pytest.raises(Problem) as refused:
        await line.client.request("h1", "sync", messages.VmRequest(vm_id="vm"), Done)
    assert (refused.value.code, refused.value.message) == ("not_available", "sync is not scripted")


async def test_a_message_that_is_too_large_is_refused_here(line: Line) -> None:
    wish = messages.Exec(vm_id="vm", command="x", stdin=b"x" * (subjects.MAX_PAYLOAD + 1))
    with pytest.raises(Problem) as refused:
        await line.client.request("h1", "exec", wish, Done)
    assert refused.value.code == "too_large"


async def test_rubbish_instead_of_an_answer_is_a_problem(line: Line) -> None:
    async def rubbish(message: Msg) -> None:
        await message.respond(b"\xc1rubbish")

    await line.theirs.subscribe(subjects.rpc("rubbish", "list"), cb=rubbish)
    await settle(line.theirs)
    with pytest.raises(Problem):
        await line.client.request("rubbish", "list", Empty(), Done)


async def test_a_session_carries_both_ways_and_its_end(line: Line) -> None:
    async with await line.open(kind="exec", command="cat; echo err >&2; exit 7") as session:
        assert await session.write(b"hello")
        await session.eof()
        output: dict[int, bytes] = {1: b"", 2: b""}
        async for frame in session:
            output[frame.stream] += frame.data
    assert output == {1: b"hello", 2: b"err\n"}
    assert session.end is not None and session.end.exit_code == 7
    assert not await session.write(b"too late")


async def test_much_goes_through_a_small_window_in_order(line: Line) -> None:
    size = 3_000_000
    data = bytes(number % 251 for number in range(size))
    async with await line.open(kind="exec", command=["cat"], window=64 << 10) as session:

        async def feed() -> None:
            await session.write(data)
            await session.eof()

        feeder = asyncio.create_task(feed())
        got = b"".join([frame.data async for frame in session])
        await feeder
    assert got == data


async def test_a_reader_that_does_not_read_holds_the_process(line: Line) -> None:
    async with await line.open(kind="exec", command="head -c 10000000 /dev/zero", window=256 << 10) as session:
        await until(lambda: sum(len(frame.data) for frame in session._frames) == 256 << 10)
        await asyncio.sleep(0.1)
        assert sum(len(frame.data) for frame in session._frames) == 256 << 10, "no more than was granted"
        total = 0
        async for frame in session:
            total += len(frame.data)
    assert total == 10_000_000


async def test_leaving_a_session_ends_its_process(line: Line) -> None:
    async with await line.open(kind="exec", command="sleep 300"):
        assert len(line.host.sessions) == 1
    await until(lambda: not line.host.sessions)


async def test_a_refused_session_leaves_no_subscription(line: Line) -> None:
    before = len(line.ours._subs)
    with pytest.raises(Problem):
        await Session.open(line.client, "h1", Open(vm_id="nothing", session_id=new_id(), kind="exec"))
    assert len(line.ours._subs) == before


async def test_a_problem_at_the_end_is_raised(line: Line) -> None:
    async def failing(message: Msg) -> None:
        wish = messages.decode(message.data, Open)
        await message.respond(messages.answer(Opened()))
        out = subjects.session_out(wish.session_id)
        await line.theirs.publish(out, messages.encode(Data(stream=1, data=b"some")))
        await line.theirs.publish(out, messages.encode(SessionEnd(code="gone", message="The VM has ended.")))

    await line.theirs.subscribe(subjects.rpc("failing", "open"), cb=failing)
    await settle(line.theirs)
    async with await Session.open(line.client, "failing", Open(vm_id="v", session_id=new_id(), kind="exec")) as session:
        assert (await anext(session)).data == b"some"
        with pytest.raises(Problem) as refused:
            await anext(session)
    assert refused.value.code == "gone"


async def test_a_frame_that_can_not_be_read_ends_the_session(line: Line) -> None:
    async with await line.open(kind="exec", command="sleep 300") as session:
        await line.theirs.publish(subjects.session_out(session.wish.session_id), b"\xc1")
        with pytest.raises(Problem):
            await session.read()


async def test_a_session_that_lived_through_a_reconnection_is_given_up(line: Line) -> None:
    ours = await connect(line.url, name="breaking")
    try:
        wish = Open(vm_id="vm", session_id=new_id(), kind="exec", command="sleep 300")
        async with await Session.open(HostClient(ours), "h1", wish) as session:
            assert ours._transport is not None
            ours._transport.close()  # type: ignore[no-untyped-call]
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(Problem) as refused:
                    await session.read()
        assert refused.value.code == "unavailable"
    finally:
        await ours.close()


async def test_a_closed_connection_is_a_problem_not_a_hang(line: Line) -> None:
    closed = await connect(line.url, name="closed")
    await closed.close()
    with pytest.raises(Problem) as refused:
        await HostClient(closed).request("h1", "list", Empty(), Done)
    assert refused.value.code == "unavailable"


async def test_hosts_are_live_then_suspect_then_lost(line: Line) -> None:
    moment = [1000.0]
    hosts = Hosts(line.ours, clock=lambda: moment[0])
    news: list[tuple[str, bool]] = []
    hosts.listen(lambda view, anew: news.append((view.host_id, anew)))
    await hosts.start()
    said = Presence(host_id="p1", machine_id="m", version="1", boot="1", accelerator="tcg", cpus=1, memory_mb=1,
                    free_memory_mb=1, free_disk_gb=1.0, load=0.0)  # fmt: skip
    for boot, host_id, subject in (("1", "p1", "p1"), ("1", "p1", "p1"), ("2", "p1", "p1"), ("1", "p2", "other")):
        said.boot, said.host_id = boot, host_id
        await line.theirs.publish(subjects.presence(subject), messages.encode(said))
    await line.theirs.publish(subjects.presence("p1"), b"rubbish")
    await settle(line.theirs)
    await until(lambda: len(news) == 3)
    assert news == [("p1", True), ("p1", False), ("p1", True)]
    assert hosts.state("p1") is HostState.LIVE and [view.host_id for view in hosts.live()] == ["p1"]
    moment[0] += presence.LOST_AFTER / 2
    assert hosts.state("p1") is HostState.SUSPECT and hosts.live() == []
    moment[0] += presence.LOST_AFTER
    assert hosts.state("p1") is HostState.LOST and hosts.state("never") is HostState.LOST
    assert hosts.get("p2") is None, "nobody speaks for another host"
    said.boot, said.host_id = "2", "p1"
    answer = await line.theirs.request(subjects.presence("p1"), messages.encode(said), timeout=30)
    assert messages.decode(answer.data, messages.Heard).lost_after_s == presence.LOST_AFTER
    assert news[-1] == ("p1", True), "one that was lost is looked at anew, though it has never ended"
    hosts.hear(said)
    assert news[-1] == ("p1", False)
    await hosts.stop()


async def test_who_stood_still_declares_nobody_lost(line: Line) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in (("LOOK_S", 0.01), ("DEAF_AFTER", 0.2)):
            patch.setattr(presence, name, seconds)
        hosts = Hosts(line.ours, lost_after=0.4)
        await hosts.start()
        hosts.hear(Presence(host_id="p1", machine_id="m", version="1", boot="1", accelerator="tcg", cpus=1,
                            memory_mb=1, free_memory_mb=1, free_disk_gb=1.0, load=0.0))  # fmt: skip
        time.sleep(0.6)  # noqa: ASYNC251  # as one that is frozen: nothing of this program runs
        assert hosts.state("p1") is HostState.LIVE
        await until(lambda: hosts.state("p1") is HostState.LOST)
        await hosts.stop()
