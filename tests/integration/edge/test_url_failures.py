"""The edge when parts of the platform are away, and VMs on other machines."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket

import pytest
import websockets
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from mags.edge.app import Edge
from mags.protocol.errors import Problem
from tests.integration.edge.world import World
from tests.kit.web import App


async def test_caddy_comes_back_after_it_was_killed(world: World) -> None:
    await world.start()
    world.host.vm("v1", {8080: await world.serve(App())})
    world.control.publish("shop", "v1")
    assert (await world.get("shop")).status_code == 200
    caddy = world.edge.caddy
    assert caddy is not None and caddy.pid is not None

    os.kill(caddy.pid, signal.SIGKILL)

    async with asyncio.timeout(60):
        while True:
            try:
                if caddy.restarts and (await world.get("shop")).status_code == 200:
                    break
            except OSError:
                pass
            except Exception as error:
                if "connect" not in repr(error).lower() and "disconnect" not in repr(error).lower():
                    raise
            await asyncio.sleep(0.05)


async def test_an_edge_that_was_killed_starts_again_over_its_remains(world: World) -> None:
    await world.start()
    world.host.vm("v1", {8080: await world.serve(App())})
    world.control.publish("shop", "v1")
    assert (await world.get("shop")).status_code == 200
    await world.edge.aclose()
    for name in ("u/shop.sock", "u/other.sock", "gate.sock"):  # as a killed edge leaves them
        with socket.socket(socket.AF_UNIX) as left:
            (world.settings.sockets / name).unlink(missing_ok=True)
            left.bind(str(world.settings.sockets / name))

    world.edge = Edge(world.settings)
    await world.edge.start()
    world.stack.push_async_callback(world.edge.aclose)

    assert (await world.get("shop")).status_code == 200
    assert (await world.get("other")).status_code == 404


async def test_a_known_name_works_while_control_is_away_and_a_new_one_says_so(world: World) -> None:
    await world.start()
    world.host.vm("v1", {8080: await world.serve(App())})
    world.control.publish("shop", "v1", ttl_s=600)
    assert (await world.get("shop")).status_code == 200
    await world.control.aclose()

    new = await world.get("new")

    assert (await world.get("shop")).status_code == 200
    assert new.status_code == 503
    assert "Try again soon" in new.text and "control" not in new.text


@pytest.mark.parametrize(("code", "said"), [("no_capacity", "no room"), ("unavailable", "be shown")])
async def test_why_a_vm_can_not_be_had_is_told_to_the_log_and_not_to_strangers(
    world: World, caplog: pytest.LogCaptureFixture, code: str, said: str
) -> None:
    caplog.set_level(logging.INFO)
    await world.start()
    vm = world.host.vm("v1", {8080: await world.serve(App())})
    vm.problem = Problem(code, "The memory of host rack-7 is used up (43 MB free, 96 MB needed).")
    world.control.publish("shop", "v1")

    seen = await world.get("shop")

    assert seen.status_code == 503 and seen.headers["retry-after"]
    assert said in seen.text
    assert not [word for word in ("rack-7", "MB", "job-of-v1") if word in seen.text]
    assert "shop.apps.localhost (job-of-v1): The memory of host rack-7 is used up (43 MB free" in caplog.text


async def test_a_program_that_answers_garbage_harms_only_its_own_url(world: World) -> None:
    garbage = [
        b"\xff\x00garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
    ]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(garbage[int(head.split(b" ")[1][1:])])
        await writer.drain()

    await world.start()
    world.host.vm("v1", {8080: await world.serve(answer)})
    world.host.vm("v2", {8080: await world.serve(App())})
    world.control.publish("mad", "v1")
    world.control.publish("shop", "v2")

    for number in range(len(garbage)):
        assert (await world.get("mad", f"/{number}")).status_code == 502, number
    assert (await world.get("shop")).status_code == 200


async def test_more_after_an_answer_does_not_become_the_next_ones(world: World) -> None:
    """A program that sends two answers to one request: the second must not be given to anybody."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")

    await world.start()
    world.host.vm("v1", {8080: await world.serve(answer)})
    world.control.publish("mad", "v1")
    async with world.client() as client:
        for _ in range(20):
            seen = await client.get("/", headers=world.host_header("mad"))
            assert seen.text == "first" or seen.status_code == 502


async def test_the_edge_goes_on_when_nats_comes_back(world: World) -> None:
    await world.start()
    world.host.vm("v1", {8080: await world.serve(App())})
    world.control.publish("shop", "v1", ttl_s=600)
    assert (await world.get("shop")).status_code == 200

    await world.restart_nats()

    world.control.publish("new", "v1")
    async with asyncio.timeout(60):
        for name in ("shop", "new"):
            while (await world.get(name)).status_code != 200:
                await asyncio.sleep(0.05)


async def test_a_vm_on_another_machine_is_reached_through_its_host(world: World) -> None:
    world.host.machine_id = "elsewhere"
    await world.start()
    app = App()
    vm = world.host.vm("v1", {8080: await world.serve(app)})
    vm.asleep, vm.wake_s = True, 0.2
    world.control.publish("shop", "v1")
    body = bytes(range(256)) * 8000

    seen = await asyncio.gather(*(world.get("shop", method="POST", content=body) for _ in range(10)))

    assert {one.status_code for one in seen} == {200}
    assert all(request.body == body for request in app.requests)
    assert vm.wakes == 1
    assert {one.kind for one in world.host.opened} == {"connect"}


async def test_a_program_elsewhere_that_does_not_listen_is_waited_for_and_named(world: World) -> None:
    world.host.machine_id = "elsewhere"
    await world.start(listen_timeout_s=0.5)
    world.host.vm("v1", {})
    world.control.publish("shop", "v1")

    seen = await world.get("shop")

    assert seen.status_code == 502
    assert "port 8080" in seen.text


async def test_websockets_pass_to_another_machine(world: World) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    world.host.machine_id = "elsewhere"
    await world.start()
    async with serve_websocket(echo, "127.0.0.1", 0, max_size=None) as server:
        world.host.vm("v1", {8080: next(iter(server.sockets)).getsockname()[1]})
        world.control.publish("chat", "v1")
        uri = f"ws://chat.apps.localhost:{world.http_port}/"
        async with websockets.connect(uri, host="127.0.0.1", max_size=None, proxy=None) as connection:
            await connection.send(bytes(2_000_000))
            assert await connection.recv() == bytes(2_000_000)
    async with asyncio.timeout(60):
        await asyncio.gather(*world.host.sessions)
