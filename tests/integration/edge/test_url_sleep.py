"""Requests to a VM that falls asleep at any moment: those that have come wait until it is awake, those under way keep
it awake."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
import websockets
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from tests.integration.edge.world import World
from tests.kit.web import Seen, read_request


class Echo:
    """A program in a VM that remembers what it was asked, takes its time, and answers with the body."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.pause = 0.0
        self._open: set[asyncio.StreamWriter] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while (seen := await read_request(reader)) is not None:
                self.seen.append(seen)
                await asyncio.sleep(self.pause)
                body = seen.body or seen.target.encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        finally:
            self._open.discard(writer)

    def cut(self) -> None:
        """The VM sleeps: what is open is reset."""
        for writer in self._open:
            writer.transport.abort()


async def test_a_kept_connection_survives_the_night_with_any_method(world: World) -> None:
    await world.start()
    app = Echo()
    vm = world.host.vm("v1", {8080: await world.serve(app)})
    world.control.publish("shop", "v1", ttl_s=600)
    async with world.client() as client:
        for number, method in enumerate(("GET", "POST", "PUT", "DELETE", "PATCH"), start=1):
            for _ in range(3):
                body = f"{method} {number}".encode()
                seen = await client.request(method, "/x", headers=world.host_header("shop"), content=body)
                assert (seen.status_code, seen.content) == (200, body)
            assert await world.host.fall_asleep("v1", app.cut) == 0
            assert vm.wakes == number - 1
    assert len(app.seen) == 15


async def hammer(world: World, tries: int) -> None:
    """Requests at random moments around each time that the VM falls asleep; each reaches it once."""
    await world.start()
    app, random = Echo(), Random(7)
    vm = world.host.vm("v1", {8080: await world.serve(app)})
    vm.wake_s = 0.01
    world.control.publish("shop", "v1", ttl_s=600)
    slept = 0
    async with world.client() as client:

        async def ask(number: int) -> None:
            await asyncio.sleep(random.uniform(0, 0.02))
            method = random.choice(("GET", "POST", "PUT"))
            body = b"" if method == "GET" else bytes(random.choice((1, 1000, 200_000)))
            seen = await client.request(method, f"/{number}", headers=world.host_header("shop"), content=body)
            assert (seen.status_code, seen.content) == (200, body or f"/{number}".encode()), number

        for number in range(tries):
            app.pause = random.choice((0.0, 0.005))
            asking = [asyncio.create_task(ask(number * 4 + index)) for index in range(4)]
            await asyncio.sleep(random.uniform(0, 0.025))
            slept += not await world.host.fall_asleep("v1", app.cut)
            await asyncio.gather(*asking)
    assert slept > tries / 10
    targets = [int(seen.target[1:]) for seen in app.seen if seen.method != "GET"]
    assert len(targets) == len(set(targets)), "a request that must not be repeated was"


async def test_no_request_is_lost_while_it_falls_asleep(world: World) -> None:
    await hammer(world, 40)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_no_request_is_lost_in_a_thousand_nights(world: World) -> None:
    await hammer(world, 1000)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_under_way_keeps_it_awake(world: World, method: str) -> None:
    await world.start()
    app = Echo()
    world.host.vm("v1", {8080: await world.serve(app)})
    world.control.publish("shop", "v1")
    app.pause = 0.5
    asking = asyncio.create_task(world.get("shop", method=method, content=b"body"))
    async with asyncio.timeout(60):
        while not app.seen:
            await asyncio.sleep(0.005)

    assert await world.host.fall_asleep("v1", app.cut) == 1
    assert (await asking).content == b"body"
    async with asyncio.timeout(60):
        while await world.host.fall_asleep("v1", app.cut):  # the answer's last byte is on its way
            await asyncio.sleep(0.005)


async def test_an_open_websocket_keeps_it_awake(world: World) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    await world.start()
    async with serve_websocket(echo, "127.0.0.1", 0) as server:
        world.host.vm("v1", {8080: next(iter(server.sockets)).getsockname()[1]})
        world.control.publish("chat", "v1")
        uri = f"ws://chat.apps.localhost:{world.http_port}/"
        async with websockets.connect(uri, host="127.0.0.1", proxy=None) as connection:
            await connection.send("one")
            assert await connection.recv() == "one"
            assert await world.host.fall_asleep("v1", lambda: None) == 1
            await connection.send("two")
            assert await connection.recv() == "two"


async def test_a_post_to_a_vm_that_goes_down_amid_it_is_told_so_and_not_repeated(world: World) -> None:
    """As when the server itself goes down: nothing is waited for then."""
    await world.start()
    app = Echo()
    world.host.vm("v1", {8080: await world.serve(app)})
    world.control.publish("shop", "v1")
    app.pause = 60
    asking = asyncio.create_task(world.get("shop", method="POST", content=b"body"))
    async with asyncio.timeout(60):
        while not app.seen:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.01)  # what was connected in the very millisecond of the sleep counts as later

    await world.host.sleep("v1")

    seen = await asking
    assert (seen.status_code, seen.headers["x-mags-error"]) == (503, "503")
    assert "put to sleep" in seen.text
    assert len(app.seen) == 1


async def test_a_program_that_ends_kept_connections_loses_no_request(world: World) -> None:
    """Many servers end a connection that was not used for some seconds; a request may come just then."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = await read_request(reader)
        if seen is not None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(seen.body) + seen.body)
            await writer.drain()

    await world.start()
    world.host.vm("v1", {8080: await world.serve(once)})
    world.control.publish("shop", "v1", ttl_s=600)
    async with world.client() as client:
        for number in range(50):
            body = str(number).encode()
            seen = await client.post("/", headers=world.host_header("shop"), content=body)
            assert (seen.status_code, seen.content) == (200, body)
            await asyncio.sleep(0.002)
