"""Public URLs through a real Caddy, to a scripted VM."""

from __future__ import annotations

import asyncio

import httpx

from tests.integration.edge.world import World
from tests.kit.web import App, answers


async def get(world: World, label: str, path: str = "/", **more: object) -> httpx.Response:
    headers = {"Host": f"{label}.apps.localhost:{world.http_port}", **more.pop("headers", {})}  # type: ignore[dict-item]
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        method = str(more.pop("method", "GET"))
        return await client.request(method, f"http://127.0.0.1:{world.http_port}{path}", headers=headers, **more)  # type: ignore[arg-type]


async def test_a_request_reaches_the_port_of_the_vm(world: World) -> None:
    await world.start()
    app = App()
    world.host.vm("v1", {8080: await world.serve(app)})
    world.control.publish("shop", "v1")

    first = await get(world, "shop", "/a?b=c")
    again = await get(world, "shop", "/a?b=c")

    assert first.status_code == again.status_code == 200
    seen = app.requests[0]
    assert seen.target == "/a?b=c"
    assert seen.headers["host"] == f"shop.apps.localhost:{world.http_port}"
    assert seen.headers["x-forwarded-for"] == "127.0.0.1"
    assert seen.headers["x-forwarded-proto"] == "http"
    assert seen.headers["x-forwarded-host"] == f"shop.apps.localhost:{world.http_port}"


async def test_a_sleeping_vm_is_woken_once_by_many(world: World) -> None:
    await world.start()
    vm = world.host.vm("v1", {8080: await world.serve(App())})
    vm.asleep, vm.wake_s = True, 0.5
    world.control.publish("shop", "v1")

    answers_ = await asyncio.gather(*(get(world, "shop") for _ in range(50)))

    assert {one.status_code for one in answers_} == {200}
    assert vm.wakes == 1


async def test_an_upload_that_finds_no_socket_arrives_whole(world: World) -> None:
    await world.start()
    app = App()
    world.host.vm("v1", {8080: await world.serve(app)})
    world.control.publish("shop", "v1")
    body = bytes(range(256)) * 40_000

    answer = await get(world, "shop", method="POST", content=body)

    assert answer.status_code == 200
    assert app.requests[0].body == body


async def test_what_is_not_there_is_said_with_the_right_status(world: World) -> None:
    await world.start(listen_timeout_s=0.3)
    world.host.vm("v1", {})
    world.control.publish("quiet", "v1")
    world.control.publish("lost", "v2")
    world.control.names["ended", None] = answers("stopped", subdomain="ended", name="old")
    world.control.names["shut", None] = answers("closed", subdomain="shut", port=8080)

    quiet, lost, ended, shut, none = await asyncio.gather(
        *(get(world, label) for label in ("quiet", "lost", "ended", "shut", "nobody"))
    )

    assert (quiet.status_code, lost.status_code, ended.status_code) == (502, 410, 410)
    assert (shut.status_code, none.status_code) == (404, 404)
    assert "no program in it listens on port 8080" in quiet.text
    assert "job-of-v1" in quiet.text
