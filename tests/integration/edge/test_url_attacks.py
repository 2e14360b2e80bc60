"""Bad days at the edge: slow and huge requests, tricks with the Host header."""

from __future__ import annotations

import asyncio

from tests.integration.edge.world import World
from tests.kit.web import App, raw

HOSTS = {
    "shop.apps.localhost": 200,
    "SHOP.Apps.LocalHost": 200,
    "shop.apps.localhost.": 200,
    "shop.apps.localhost:1": 200,
    "x.shop.apps.localhost": 404,
    ".apps.localhost": 400,
    "*.apps.localhost": 400,
    "apps.localhost": 404,
    "localhost": 404,
    "../shop.apps.localhost": 400,
    "..%2fshop.apps.localhost": 400,
    "%2e%2e.apps.localhost": 400,
    "shop%00.apps.localhost": 400,
    "shop.sock.apps.localhost": 404,
    "{http.request.uri}.apps.localhost": 400,
    "[::1]": 404,
    "[::1": 400,
    "[shop]": 400,
    "127.0.0.1": 404,
    "2130706433": 404,
    "shop.apps.localhost@evil.example": 400,
    "shop.apps.localhost/evil": 400,
    "evil.example#shop.apps.localhost": 400,
    "s" * 64 + ".apps.localhost": 400,
    "xn--shop-.apps.localhost": 400,
    "-.apps.localhost": 400,
    "gate.apps.localhost": 404,
    "": 400,
}


async def test_a_host_header_names_its_own_name_or_nothing(world: World) -> None:
    await world.start()
    app = App()
    world.host.vm("v1", {8080: await world.serve(app)})
    world.control.publish("shop", "v1")

    async def status(host: str) -> int:
        answer = await raw(world.http_port, f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return int(answer.split(b" ", 2)[1])

    for _ in range(2):  # by the gate, then by the socket
        assert {host: await status(host) for host in HOSTS} == HOSTS
    assert len(app.requests) == 2 * list(HOSTS.values()).count(200)


async def test_a_slow_client_is_cut_off_and_others_are_served(world: World) -> None:
    await world.start(header_timeout_s=1)
    world.host.vm("v1", {8080: await world.serve(App())})
    world.control.publish("shop", "v1")
    slow = [await asyncio.open_connection("127.0.0.1", world.http_port) for _ in range(200)]
    for _, writer in slow:
        writer.write(b"GET / HTTP/1.1\r\nHost: shop.apps.localhost\r\nX: ")

    assert (await world.get("shop")).status_code == 200
    async with asyncio.timeout(60):
        for reader, writer in slow:
            await reader.read(-1)
            writer.close()


async def test_huge_headers_are_refused(world: World) -> None:
    await world.start()
    app = App()
    world.host.vm("v1", {8080: await world.serve(app)})
    world.control.publish("shop", "v1")

    head = "GET / HTTP/1.1\r\nHost: shop.apps.localhost\r\nX-Huge: "
    huge = await raw(world.http_port, head.encode() + b"x" * 200_000 + b"\r\n\r\n")
    large = await world.get("shop", headers={"X-Large": "x" * 30_000})

    assert large.status_code == 200
    assert huge == b"" or b" 431 " in huge  # the answer is lost when the connection is reset under our writing
    assert len(app.requests) == 1
