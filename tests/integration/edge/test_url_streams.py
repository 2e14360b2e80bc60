"""What flows through a public URL: large bodies, events, WebSockets; and what becomes of it when somebody leaves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest
import websockets
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from tests.integration.edge.world import World
from tests.kit.web import read_request


async def test_events_arrive_one_by_one(world: World) -> None:
    go = asyncio.Event()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n")
        await writer.drain()
        await go.wait()
        writer.write(b"data: two\n\n")

    await world.start()
    world.host.vm("v1", {8080: await world.serve(events)})
    world.control.publish("news", "v1")

    async with world.client() as client, client.stream("GET", "/", headers=world.host_header("news")) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "data: one"
        go.set()
        assert [line async for line in lines] == ["", "data: two", ""]


async def test_bodies_of_any_size_pass_in_both_directions(world: World) -> None:
    size = 30_000_000

    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"chunked" in head.lower()
        seen = hashlib.sha256()
        while length := int((await reader.readline()).strip(), 16):
            seen.update(await reader.readexactly(length))
            await reader.readline()
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nX-Sum: {seen.hexdigest()}\r\n\r\n".encode())
        for _ in range(size // 100_000):
            writer.write(bytes(100_000))
            await writer.drain()

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(size // 100_000):
            piece = bytes([number % 256]) * 100_000
            sent.update(piece)
            yield piece

    sent = hashlib.sha256()
    await world.start()
    world.host.vm("v1", {8080: await world.serve(mirror)})
    world.control.publish("big", "v1")

    received = 0
    async with world.client() as client:
        async with client.stream("POST", "/", headers=world.host_header("big"), content=pieces()) as answer:
            async for data in answer.aiter_bytes():
                received += len(data)

    assert received == size
    assert answer.headers["x-sum"] == sent.hexdigest()


async def test_a_slow_reader_slows_the_program_down(world: World) -> None:
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(bytes(100_000))
            await writer.drain()
            written += 100_000

    await world.start()
    world.host.vm("v1", {8080: await world.serve(flood)})
    world.control.publish("flood", "v1")

    reader, writer = await asyncio.open_connection("127.0.0.1", world.http_port, limit=1 << 16)
    writer.write(b"GET / HTTP/1.1\r\nHost: flood.apps.localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    before = -1
    async with asyncio.timeout(60):
        while before != written:  # until nothing moves any more
            before = written
            await asyncio.sleep(0.5)
    writer.close()

    assert 0 < written < 100_000_000


async def test_websockets_pass(world: World) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    await world.start()
    async with serve_websocket(echo, "127.0.0.1", 0, max_size=None) as server:
        world.host.vm("v1", {8080: next(iter(server.sockets)).getsockname()[1]})
        world.control.publish("chat", "v1")
        for _ in range(2):  # by the gate, then by the socket
            async with websockets.connect(
                f"ws://chat.apps.localhost:{world.http_port}/", host="127.0.0.1", max_size=None, proxy=None
            ) as connection:
                await connection.send("hello")
                assert await connection.recv() == "hello"
                await connection.send(bytes(2_000_000))
                assert await connection.recv() == bytes(2_000_000)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n"])
async def test_a_client_that_leaves_ends_its_request_in_the_vm(world: World, head: bytes) -> None:
    ended = asyncio.Event()
    started = asyncio.Event()

    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        started.set()
        if not await reader.read(1):
            ended.set()

    await world.start()
    world.host.vm("v1", {8080: await world.serve(patient)})
    world.control.publish("slow", "v1")
    _, writer = await asyncio.open_connection("127.0.0.1", world.http_port)
    writer.write(b"GET / HTTP/1.1\r\nHost: slow.apps.localhost\r\n\r\n")
    async with asyncio.timeout(60):
        await started.wait()
        writer.close()
        await ended.wait()


async def test_a_request_counts_as_activity_while_it_lasts(world: World) -> None:
    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    go = asyncio.Event()
    await world.start(activity_interval_s=0.1)
    world.host.vm("v1", {8080: await world.serve(patient)})
    world.control.publish("slow", "v1")

    asking = asyncio.create_task(world.get("slow"))
    async with asyncio.timeout(60):
        while sum(one.connections == 1 and one.vm_id == "v1" for one in world.host.activity) < 3:
            await asyncio.sleep(0.02)
        go.set()
        assert (await asking).status_code == 200
        before = -1
        while before != len(world.host.activity):
            before = len(world.host.activity)
            await asyncio.sleep(0.5)


async def test_two_clients_of_one_name_do_not_see_each_others_answers(world: World) -> None:
    async def name_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (seen := await read_request(reader)) is not None:
            body = seen.target.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await asyncio.sleep(0)

    await world.start()
    for number in (1, 2):
        world.host.vm(f"v{number}", {8080: await world.serve(name_it)})
        world.control.publish(f"app{number}", f"v{number}")

    async def many(client: httpx.AsyncClient, who: int) -> None:
        for number in range(50):
            path = f"/{who}/{number}"
            assert (await client.get(path, headers=world.host_header(f"app{who % 2 + 1}"))).text == path

    async with world.client() as client:
        await asyncio.gather(*(many(client, who) for who in range(10)))
