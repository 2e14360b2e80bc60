"""Public URLs through a real Caddy, to a scripted VM: what reaches a program, and what people see when it can't."""

from __future__ import annotations

import asyncio

from tests.integration.edge.world import World
from tests.kit.web import App, answers, read_request


async def test_a_request_reaches_the_port_of_the_vm(world: World) -> None:
    await world.start()
    app = App()
    world.host.vm("v1", {8080: await world.serve(app)})
    world.control.publish("shop", "v1")

    first = await world.get("shop", "/a?b=c")
    again = await world.get("shop", "/a?b=c")

    assert first.status_code == again.status_code == 200
    seen = app.requests[0]
    assert seen.target == "/a?b=c"
    assert seen.headers["host"] == f"shop.apps.localhost:{world.http_port}"
    assert seen.headers["x-forwarded-for"] == "127.0.0.1"
    assert seen.headers["x-forwarded-proto"] == "http"
    assert seen.headers["x-forwarded-host"] == f"shop.apps.localhost:{world.http_port}"


async def test_what_a_client_says_of_its_address_is_not_believed(world: World) -> None:
    await world.start()
    app = App()
    world.host.vm("v1", {8080: await world.serve(app)})
    world.control.publish("shop", "v1")
    lies = {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "bank"}

    for _ in range(2):  # by the gate, then by the socket
        await world.get("shop", headers=lies)

    for seen in app.requests:
        assert seen.headers["x-forwarded-for"] == "127.0.0.1"
        assert seen.headers["x-forwarded-proto"] == "http"
        assert seen.headers["x-forwarded-host"].startswith("shop.")


async def test_a_kept_connection_asks_nobody(world: World) -> None:
    await world.start()
    vm = world.host.vm("v1", {8080: await world.serve(App())})
    world.control.publish("shop", "v1", ttl_s=600)
    async with world.client() as client:
        for _ in range(3):  # by the gate, then by the socket
            await client.get("/", headers=world.host_header("shop"))
        before = vm.dials
        for _ in range(20):
            assert (await client.get("/", headers=world.host_header("shop"))).status_code == 200

    assert (world.control.resolutions, vm.dials) == (1, before)


async def test_a_sleeping_vm_is_woken_once_by_many(world: World) -> None:
    await world.start()
    vm = world.host.vm("v1", {8080: await world.serve(App())})
    vm.asleep, vm.wake_s = True, 0.5
    world.control.publish("shop", "v1")

    seen = await asyncio.gather(*(world.get("shop") for _ in range(50)))

    assert {one.status_code for one in seen} == {200}
    assert vm.wakes == 1


async def test_a_vm_that_fell_asleep_is_woken_by_the_next_request(world: World) -> None:
    await world.start()
    vm = world.host.vm("v1", {8080: await world.serve(App())})
    world.control.publish("shop", "v1")
    async with world.client() as client:
        for number in range(1, 6):
            assert (await client.get("/", headers=world.host_header("shop"))).status_code == 200
            await world.host.sleep("v1")
            async with asyncio.timeout(60):
                while vm.wakes < number:  # the news comes a moment later; no request is lost meanwhile
                    assert (await client.get("/", headers=world.host_header("shop"))).status_code == 200


async def test_connections_into_a_vm_that_falls_asleep_end(world: World) -> None:
    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n")
        await reader.read()

    await world.start()
    world.host.vm("v1", {8080: await world.serve(patient)})
    world.control.publish("news", "v1")
    async with world.client() as client, client.stream("GET", "/", headers=world.host_header("news")) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "data: one"
        await asyncio.sleep(0.01)  # what was connected in the very millisecond of the sleep counts as later
        await world.host.sleep("v1")
        assert [line async for line in lines] == [""]


async def test_a_program_that_starts_late_is_waited_for(world: World) -> None:
    await world.start(listen_timeout_s=30)
    vm = world.host.vm("v1", {})
    world.control.publish("shop", "v1")

    asking = asyncio.create_task(world.get("shop"))
    async with asyncio.timeout(60):
        while vm.dials < 3:
            await asyncio.sleep(0.02)
    assert not asking.done()
    vm.ports[8080] = await world.serve(App())

    assert (await asking).status_code == 200


async def test_a_get_whose_connection_breaks_is_sent_again_and_nothing_else_is(world: World) -> None:
    """As when a VM is put to sleep at that moment."""
    requests: list[str] = []

    async def breaks_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = await read_request(reader)
        assert seen is not None
        requests.append(seen.method)
        if len(requests) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    await world.start()
    world.host.vm("v1", {8080: await world.serve(breaks_first)})
    world.control.publish("shop", "v1")

    assert (await world.get("shop")).text == "ok"
    assert requests == ["GET", "GET"]
    requests.clear()
    assert (await world.get("shop", method="POST", content=b"once")).status_code == 502
    assert requests == ["POST"]


async def test_a_vm_that_is_being_placed_is_waited_for(world: World) -> None:
    await world.start()
    world.control.names["shop", None] = answers("starting", subdomain="shop")
    asking = asyncio.create_task(world.get("shop"))
    async with asyncio.timeout(60):
        while world.control.resolutions < 2:
            await asyncio.sleep(0.02)
    world.host.vm("v1", {8080: await world.serve(App())})
    world.control.publish("shop", "v1")

    assert (await asking).status_code == 200


async def test_a_vm_that_starts_again_elsewhere_is_waited_for(world: World) -> None:
    """A name in use whose VM is brought back on another host: its next request is held, too."""
    await world.start()
    world.host.vm("v1", {8080: await world.serve(App("before"))})
    world.control.publish("shop", "v1", ttl_s=600)
    assert (await world.get("shop")).text == "before"

    world.control.names["shop", None] = answers("starting", subdomain="shop")
    before = world.control.resolutions
    await world.control.changed("shop")
    async with asyncio.timeout(60):
        while world.control.resolutions == before:  # it has heard, and asked
            await asyncio.sleep(0.01)
    asking = [asyncio.create_task(world.get("shop", f"/{number}")) for number in range(5)]
    async with asyncio.timeout(60):
        while world.control.resolutions < before + 3:
            await asyncio.sleep(0.01)
    world.host.vm("v2", {8080: await world.serve(App("after"))})
    world.control.publish("shop", "v2", ttl_s=600)
    for task in asking:
        answer = await task
        assert (answer.status_code, answer.text) in ((200, "after"), (200, "before"))
    assert (await world.get("shop")).text == "after"


async def test_an_upload_that_finds_no_socket_arrives_whole(world: World) -> None:
    await world.start()
    app = App()
    world.host.vm("v1", {8080: await world.serve(app)})
    world.control.publish("shop", "v1")
    body = bytes(range(256)) * 40_000

    seen = await world.get("shop", method="POST", content=body)

    assert seen.status_code == 200
    assert app.requests[0].body == body


async def test_several_ports_of_a_vm_have_names_of_their_own(world: World) -> None:
    await world.start()
    world.host.vm("v1", {8080: await world.serve(App("main")), 9000: await world.serve(App("other"))})
    world.control.publish("shop", "v1")
    world.control.publish("9000-shop", "v1", port=9000, subdomain="shop")

    assert (await world.get("shop")).text == "main"
    assert (await world.get("9000-shop")).text == "other"


async def test_a_domain_of_a_user_leads_to_the_vm_too(world: World) -> None:
    await world.start()
    world.host.vm("v1", {8080: await world.serve(App())})
    world.control.publish("shop", "v1")
    world.control.names["shop", "example.com"] = world.control.names["shop", None]

    seen = await world.get("", headers={"Host": "Shop.Example.COM"})
    other = await world.get("", headers={"Host": "shop.example.org"})

    assert (seen.status_code, other.status_code) == (200, 404)


async def test_what_is_not_there_is_said_with_the_right_status(world: World) -> None:
    await world.start(listen_timeout_s=0.3)
    world.host.vm("v1", {})
    world.control.publish("quiet", "v1")
    world.control.publish("lost", "v2")
    world.control.names["ended", None] = answers("stopped", subdomain="ended", name="old")
    world.control.names["shut", None] = answers("closed", subdomain="shut", port=8080)

    quiet, lost, ended, shut, none = await asyncio.gather(
        *(world.get(label) for label in ("quiet", "lost", "ended", "shut", "nobody"))
    )

    assert (quiet.status_code, lost.status_code, ended.status_code) == (502, 410, 410)
    assert (shut.status_code, none.status_code) == (404, 404)
    assert "no program in it listens on port 8080" in quiet.text
    assert quiet.headers["retry-after"]


async def test_an_upload_to_a_silent_vm_still_gets_the_page(world: World) -> None:
    await world.start(listen_timeout_s=0.3)
    world.host.vm("v1", {})
    world.control.publish("quiet", "v1")

    seen = await world.get("quiet", method="POST", content=bytes(200_000))

    assert seen.status_code == 502
    assert "port 8080" in seen.text


async def test_a_program_that_hangs_up_is_named_as_the_cause(world: World) -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    await world.start()
    world.host.vm("v1", {8080: await world.serve(rude)})
    world.control.publish("rude", "v1")

    seen = await world.get("rude", method="POST", content=b"once only")

    assert seen.status_code == 502
    assert "closed the connection before it had answered" in seen.text


async def test_an_alias_that_moves_takes_kept_connections_along(world: World) -> None:
    await world.start()
    world.host.vm("v1", {8080: await world.serve(App("old"))})
    world.host.vm("v2", {8080: await world.serve(App("new"))})
    world.control.publish("shop", "v1", ttl_s=600)
    async with world.client() as client:
        assert (await client.get("/", headers=world.host_header("shop"))).text == "old"
        world.control.publish("shop", "v2", ttl_s=600)
        await world.control.changed("shop")
        async with asyncio.timeout(60):
            while (await client.get("/", headers=world.host_header("shop"))).text != "new":
                await asyncio.sleep(0.01)
        for _ in range(10):
            assert (await client.get("/", headers=world.host_header("shop"))).text == "new"


async def test_a_vm_that_has_moved_is_found_without_being_told(world: World) -> None:
    await world.start()
    world.host.vm("v2", {8080: await world.serve(App("moved"))})
    world.control.publish("shop", "v1", ttl_s=600)
    assert (await world.get("shop")).status_code == 410

    world.control.publish("shop", "v2", ttl_s=600)
    assert (await world.get("shop")).text == "moved"


async def test_a_url_that_is_closed_shows_nothing_any_more(world: World) -> None:
    await world.start()
    world.host.vm("v1", {8080: await world.serve(App())})
    world.control.publish("shop", "v1", ttl_s=600)
    assert (await world.get("shop")).status_code == 200

    world.control.names["shop", None] = answers("closed", subdomain="shop", port=8080)
    await world.control.changed("shop")
    async with asyncio.timeout(60):
        while (await world.get("shop")).status_code != 404:
            await asyncio.sleep(0.01)


async def test_the_edge_answers_for_itself(world: World) -> None:
    await world.start()

    healthy = await world.get("", "/api/v1/health", headers={"Host": "localhost"})
    other = await world.get("", "/", headers={"Host": "127.0.0.1"})

    assert (healthy.status_code, healthy.json()) == (200, {"status": "ok"})
    assert other.status_code == 404
