"""Private URLs: a signed link (then a cookie), or an API token in a header."""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial

import pytest
import websockets
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from mags.protocol.edge import LINK_PARAMETER, sign_link
from tests.integration.edge.world import World
from tests.kit.web import App, answers, raw

SECRET = "a-secret-of-32-characters-or-more"


@pytest.fixture
async def app(world: World) -> App:
    """Behind the private name "desk" of VM v1."""
    made = App("private things")
    await world.start()
    world.host.vm("v1", {8080: await world.serve(made)})
    world.control.publish("desk", "v1", private=True, secret=SECRET)
    world.control.tokens["good-token"] = "desk"
    return made


async def test_a_stranger_sees_a_page_and_the_program_nothing(app: App, world: World) -> None:
    for _ in range(2):
        seen = await world.get("desk", "/x", method="POST", content=b"body")
        assert seen.status_code == 403
        assert "This address is private" in seen.text
    assert app.requests == []


async def test_a_link_becomes_a_cookie_and_the_rest_of_the_address_stays(app: App, world: World) -> None:
    link = sign_link(SECRET, lifetime_s=3600)
    async with world.client() as client:
        first = await client.get(f"/a/b?x=1&{LINK_PARAMETER}={link}&y=%20z", headers=world.host_header("desk"))
        assert first.status_code == 303
        assert first.headers["location"] == "/a/b?x=1&y=+z"
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie

        value = cookie.partition(";")[0]
        headers = {**world.host_header("desk"), "Cookie": value}
        then = await client.get("/a/b", headers=headers)

    assert then.text == "private things"
    assert len(app.requests) == 1


async def test_a_link_and_its_cookie_open_the_port_under_an_alias_too(app: App, world: World) -> None:
    world.control.publish("front", "v1", private=True, secret=SECRET)
    link = sign_link(SECRET, lifetime_s=3600)
    first = await world.get("front", f"/a?{LINK_PARAMETER}={link}")
    assert (first.status_code, first.headers["location"]) == (303, "/a")
    then = await world.get("front", "/a", headers={"Cookie": first.headers["set-cookie"].partition(";")[0]})
    assert (then.status_code, then.text) == (200, "private things")


async def test_a_link_can_not_lead_to_another_site(app: App, world: World) -> None:
    link = sign_link(SECRET, lifetime_s=3600)

    for target in (f"//evil.example/x?{LINK_PARAMETER}={link}", f"/\\evil.example/x?{LINK_PARAMETER}={link}"):
        head = f"GET {target} HTTP/1.1\r\nHost: desk.apps.localhost\r\nConnection: close\r\n\r\n"
        answer = await raw(world.http_port, head.encode())
        location = re.search(rb"\r\nLocation: ([^\r]*)", answer)
        assert location is None or re.fullmatch(rb"/(?![/\\]).*", location[1]), answer


@pytest.mark.parametrize(
    "value",
    [
        sign_link(SECRET, lifetime_s=-10),
        sign_link("another secret of the same length", lifetime_s=3600),
        sign_link("", lifetime_s=3600),
        str(int(time.time()) + 3600) + ".",
        "." * 5000,
        "%00%0d%0aX: y",
        "",
    ],
    ids=["expired", "other-secret", "no-secret", "no-signature", "dots", "control", "empty"],
)
async def test_other_links_and_cookies_open_nothing(app: App, world: World, value: str) -> None:
    by_link = await world.get("desk", f"/?{LINK_PARAMETER}={value}")
    by_cookie = await world.get("desk", headers={"Cookie": f"{LINK_PARAMETER}={value}"})

    assert (by_link.status_code, by_cookie.status_code) == (403, 403)
    assert app.requests == []


@pytest.mark.parametrize("other", ['theme={"dark":true}', "path=/x", f"{LINK_PARAMETER}=of-a-neighbour", "=", "a"])
async def test_a_cookie_opens_it_whatever_programs_have_set_beside_it(app: App, world: World, other: str) -> None:
    ours = f"{LINK_PARAMETER}={sign_link(SECRET, lifetime_s=60)}"
    for cookie in (f"{other}; {ours}", f"{ours}; {other}"):
        assert (await world.get("desk", headers={"Cookie": cookie})).status_code == 200


async def test_a_token_opens_it_and_never_reaches_the_program(app: App, world: World) -> None:
    good = await world.get("desk", headers={"X-Mags-Token": "good-token"})
    bad = await world.get("desk", headers={"X-Mags-Token": "bad-token"})

    assert (good.status_code, bad.status_code) == (200, 403)
    assert "x-mags-token" not in app.requests[0].headers


async def test_a_token_sent_to_a_public_url_does_not_reach_the_program(app: App, world: World) -> None:
    world.control.publish("open", "v1")
    for _ in range(2):
        assert (await world.get("open", headers={"X-Mags-Token": "good-token"})).status_code == 200
    assert all("x-mags-token" not in seen.headers for seen in app.requests)


async def test_a_header_does_not_name_the_socket(app: App, world: World) -> None:
    assert (await world.get("desk", headers={"X-Mags-Token": "good-token"})).status_code == 200
    (socket,) = (world.settings.sockets / "g").iterdir()

    for name in ("X-Mags-Socket", "X-Forwarded-Uri"):
        seen = await world.get("desk", headers={name: str(socket)})
        assert seen.status_code == 403
        seen = await world.get("nobody", headers={name: str(socket)})
        assert seen.status_code == 404


async def test_a_public_name_that_turns_private_is_closed_at_once(app: App, world: World) -> None:
    world.control.publish("desk", "v1", ttl_s=600)
    await world.control.changed("desk")
    async with world.client() as client:
        assert (await client.get("/", headers=world.host_header("desk"))).status_code == 200

        world.control.publish("desk", "v1", private=True, secret=SECRET, ttl_s=600)
        await world.control.changed("desk")
        async with asyncio.timeout(60):
            while (await client.get("/", headers=world.host_header("desk"))).status_code != 403:
                await asyncio.sleep(0.01)
        before = len(app.requests)
        for _ in range(5):
            assert (await client.get("/", headers=world.host_header("desk"))).status_code == 403
        assert len(app.requests) == before

        world.control.publish("desk", "v1", ttl_s=600)
        await world.control.changed("desk")
        async with asyncio.timeout(60):
            while (await client.get("/", headers=world.host_header("desk"))).status_code != 200:
                await asyncio.sleep(0.01)


async def test_an_upload_and_a_websocket_pass_when_they_have_the_key_and_end_when_the_address_is_closed(
    app: App, world: World
) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    cookie = f"{LINK_PARAMETER}={sign_link(SECRET, lifetime_s=60)}"
    body = bytes(range(256)) * 10_000
    assert (await world.get("desk", method="POST", headers={"Cookie": cookie}, content=body)).status_code == 200
    assert app.requests[0].body == body
    async with serve_websocket(echo, "127.0.0.1", 0) as server:
        world.host.vms["v1"].ports[8080] = next(iter(server.sockets)).getsockname()[1]
        await world.control.changed("desk")
        uri = f"ws://desk.apps.localhost:{world.http_port}/"
        connect = partial(websockets.connect, uri, host="127.0.0.1", proxy=None)
        with pytest.raises(websockets.InvalidStatus, match="403"):
            await connect()
        async with connect(additional_headers={"Cookie": cookie}) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"

            world.control.names["desk", None] = answers("closed", subdomain="desk", port=8080)
            await world.control.changed("desk")

            with pytest.raises(websockets.ConnectionClosed):
                async with asyncio.timeout(60):
                    await connection.recv()
