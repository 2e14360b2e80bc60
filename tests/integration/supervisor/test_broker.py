"""The real nats-server under our configuration: who may say what; and VMs that are put away over it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from mags.kit.nats import Stream, connect, ensure_stream, settle
from mags.protocol import edge, subjects
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from mags.supervisor import broker, programs, vms
from mags.supervisor.layout import Layout
from mags.supervisor.ports import free_port
from mags.supervisor.presence import PresenceWatch

PATIENCE = 60.0


class World:
    def __init__(self, port: int, users: dict[str, str]) -> None:
        self.port, self.users = port, users
        self.clients: list[Client] = []
        self.refused: list[str] = []

    def url(self, user: str) -> str:
        return broker.url(user, self.users, f"127.0.0.1:{self.port}")

    async def login(self, user: str) -> Client:
        async def on_error(error: Exception) -> None:
            self.refused.append(str(error).lower())

        client = Client()
        await client.connect(self.url(user), error_cb=on_error, allow_reconnect=False)
        self.clients.append(client)
        return client


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    layout, port = Layout(tmp_path), free_port()
    layout.make()
    made = World(port, broker.passwords(layout.nats_users))
    layout.nats_config.write_text(programs.nats_configuration(layout, f"127.0.0.1:{port}", made.users))
    child = programs.broker_child(layout, f"127.0.0.1:{port}", on_restart=lambda: None)
    await child.start()
    try:
        yield made
        for client in made.clients:
            await client.close()
    finally:
        await child.stop()


async def hears(listener: Client, subject: str, speaker: Client, world: World) -> bool:
    """Whether what `speaker` says on `subject` reaches `listener`; a refusal of the server says no."""
    heard = asyncio.Event()

    async def on_message(message: Msg) -> None:
        heard.set()

    world.refused.clear()
    subscription = await listener.subscribe(subject, cb=on_message)
    await settle(listener)
    await speaker.publish(subject, b"x")
    async with asyncio.timeout(PATIENCE):
        while not heard.is_set() and not world.refused:
            await asyncio.sleep(0.01)
    await subscription.unsubscribe()
    return heard.is_set()


SPOKEN = [
    ("control", "host", subjects.rpc("h", "start")),
    ("host", "control", subjects.presence("h")),
    ("host", "control", subjects.event("h")),
    ("host", "edge", subjects.session_out("s")),
    ("edge", "host", subjects.session_in("s")),
    ("edge", "host", subjects.rpc("h", "dial")),
    ("edge", "host", edge.activity("h", "v")),
    ("edge", "control", edge.RESOLVE),
    ("control", "edge", edge.CHANGED),
    ("supervisor", "host", subjects.rpc("h", "list")),
    ("host", "supervisor", subjects.presence("h")),
    ("host", "host", subjects.claim("h")),
]
REFUSED = [
    ("edge", "host", subjects.rpc("h", "start")),
    ("edge", "host", subjects.rpc("h", "stop")),
    ("edge", "control", subjects.event("h")),
    ("host", "host", subjects.rpc("h", "stop")),
    ("edge", "host", subjects.claim("h")),
    ("host", "control", edge.RESOLVE),
    ("host", "edge", edge.CHANGED),
    ("control", "control", subjects.presence("h")),
    ("supervisor", "control", subjects.event("h")),
]


async def test_programs_speak_on_their_own_subjects_and_on_no_others(world: World) -> None:
    clients = {user: await world.login(user) for user in broker.USERS}
    for speaker, listener, subject in SPOKEN:
        assert await hears(clients[listener], subject, clients[speaker], world), (speaker, subject)
    for speaker, listener, subject in REFUSED:
        assert not await hears(clients[listener], subject, clients[speaker], world), (speaker, subject)
        assert "permissions violation" in world.refused[0]


CONNECT = """
import asyncio, sys, nats
asyncio.run(nats.connect(sys.argv[1], allow_reconnect=False, connect_timeout=60))
"""
"""In a process of its own: the library leaves a connection behind that was refused."""


async def test_nobody_comes_in_without_a_password(world: World) -> None:
    for url in (f"nats://127.0.0.1:{world.port}", f"nats://host:wrong@127.0.0.1:{world.port}"):
        refused = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CONNECT, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await refused.communicate()
        assert b"authorization" in said.lower(), said


async def test_a_host_keeps_streams_and_cannot_delete_them(world: World) -> None:
    host = await connect(world.url("host"), name="test")
    world.clients.append(host)
    stream = Stream("MAGS_TEST", ["mags.event.*"], max_age_s=300, max_bytes=1 << 20)
    await ensure_stream(host.jetstream(timeout=PATIENCE), stream)
    await ensure_stream(host.jetstream(timeout=PATIENCE), stream)
    await host.jetstream(timeout=PATIENCE).publish(subjects.event("h"), b"x")
    with pytest.raises((nats.errors.Error, TimeoutError)):
        await host.jetstream(timeout=0.3).delete_stream("MAGS_TEST")


class Host:
    """Answers as a host does; VMs whose id begins with `tired` can sleep."""

    def __init__(self, client: Client, reports: list[m.VmReport]) -> None:
        self._client, self._reports = client, reports
        self.done: list[tuple[str, str]] = []

    async def serve(self) -> None:
        await self._client.subscribe(subjects.rpc("h", "*"), cb=self._answer)
        await settle(self._client)

    async def _answer(self, message: Msg) -> None:
        verb = message.subject.rpartition(".")[2]
        if verb == "list":
            answer = m.answer(m.VmList(vms=self._reports))
        else:
            vm_id = msgspec.msgpack.decode(message.data)["vm_id"]
            if verb == "sleep" and not vm_id.startswith("tired"):
                answer = m.refusal(Problem("not_available", "It can't sleep."))
            elif vm_id == "stuck":
                answer = m.refusal(Problem("internal", "It is stuck."))
            else:
                self.done.append((vm_id, verb))
                answer = m.answer(m.Done())
        await message.respond(answer)


def vm(vm_id: str, state: str = "running", keep: m.Keep = "stay", workspace: str | None = "w") -> m.VmReport:
    return m.VmReport(vm_id=vm_id, state=state, owner="o", keep=keep, workspace_id=workspace)


async def test_vms_that_are_to_stay_sleep_and_others_end(world: World) -> None:
    """Those with the only copy of their files do not end."""
    reports = [
        vm("only-copy", workspace=None), vm("tired-local", workspace=None),
        vm("tired"), vm("tired-parked", "parked", "park"), vm("awake"), vm("stuck"), vm("job", keep="job"),
        vm("tired-already", "sleeping"), vm("gone", "gone"), vm("ending", "stopping"),
    ]  # fmt: skip
    host = Host(await world.login("host"), reports)
    await host.serve()
    notes: list[str] = []
    until = asyncio.get_running_loop().time() + vms.DEADLINE
    await vms.put_away(await world.login("supervisor"), ["h", "nowhere"], until=until, note=notes.append)
    assert sorted(host.done) == [
        ("awake", "stop"), ("job", "stop"), ("tired", "sleep"), ("tired-local", "sleep"), ("tired-parked", "sleep")
    ]  # fmt: skip
    assert notes == ["putting 7 VMs away"]


async def test_a_host_that_was_started_again_is_new_once(world: World) -> None:
    client = await world.login("host")
    watch = PresenceWatch(world.url("supervisor"), "h")
    await watch.start()
    try:
        assert not await watch.host_is_new()
        await client.publish(subjects.presence("h"), m.encode(_presence("first", storage="It is being opened.")))
        await watch.heard(timeout=PATIENCE)
        other = _presence("other")
        other.host_id = "of another machine"
        await client.publish(subjects.presence("x"), m.encode(other))
        assert not await watch.host_is_new()
        for boot in ("first", "second"):
            await client.publish(subjects.presence("h"), m.encode(_presence(boot)))
            await client.publish(subjects.presence("h"), b"garbage")
            async with asyncio.timeout(PATIENCE):
                while not await watch.host_is_new():
                    await asyncio.sleep(0.01)
            assert not await watch.host_is_new()
        assert [one.boot for one in watch.own] == ["second"]
        assert {one.boot for one in watch.hosts} == {"second", "other"}
    finally:
        await watch.stop()


def _presence(boot: str, storage: str = "ok") -> m.Presence:
    return m.Presence(
        host_id="h", machine_id="m", version="1", boot=boot, accelerator="tcg", cpus=1, memory_mb=1, free_memory_mb=1,
        free_disk_gb=1.0, load=0.0, storage=storage,
    )  # fmt: skip
