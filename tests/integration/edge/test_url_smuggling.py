"""No request is smuggled: a front that misreads a request sends bytes on that a program reads differently, or sends a
part of it to somebody else. What each program gets must be unambiguous and for itself alone.

Each request goes by the gate, then by the socket, where Caddy keeps connections; or, of private names, by the gate
always, with the key of the attacker's own name.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.edge import http2, http3
from tests.integration.edge.smuggling import ATTACKER, BINARY, SMUGGLED, VICTIM, Recorder
from tests.integration.edge.world import World, free_port
from tests.kit.web import raw

SECRET = "a-secret-of-32-characters-or-more"
EXPOSURE = pytest.mark.parametrize("private", [False, True], ids=["public", "private"])


async def publish(world: World, name: str, private: bool) -> Recorder:
    """A name, its VM and its program; private: the token `name` opens it."""
    recorder = Recorder()
    world.host.vm(name, {8080: await world.serve(recorder)})
    more: dict[str, Any] = {"private": True, "secret": f"{SECRET}-{name}"} if private else {}
    world.control.publish(name, name, **more)
    world.control.tokens[name] = name
    world.control.certificates.add(f"{name}.apps.localhost")
    return recorder


async def own(world: World, name: str) -> None:
    """Somebody's request to its own name."""
    answer = await world.get(name, "/own", headers={"X-Mags-Token": name})
    assert (answer.status_code, answer.text) == (200, "ok")


@EXPOSURE
async def test_none_over_http_1(world: World, private: bool) -> None:
    """(That the client's next request on its own connection, in the open, goes wherever it says, is no smuggling: it
    could have sent just that.)"""
    await world.start()
    victim = await publish(world, "victim", private)
    attackers = {name: await publish(world, f"attacker-{name}", private) for name in SMUGGLED}

    async def attack(name: str) -> None:
        host = ATTACKER.replace("attacker", f"attacker-{name}")
        data = SMUGGLED[name].replace(ATTACKER, host)
        if private:
            first, _, rest = data.partition("\n")
            data = f"{first}\nX-Mags-Token: attacker-{name}\r\n{rest}"
        for _ in range(2):
            await raw(world.http_port, data.encode("latin-1"), seconds=1.5)
            await own(world, f"attacker-{name}")

    await asyncio.gather(*(attack(name) for name in SMUGGLED))
    for _ in range(20):
        await own(world, "victim")

    for name, attacker in attackers.items():
        assert all(host.startswith(f"attacker-{name}.apps.localhost") for host in await attacker.hosts()), name
    assert all(host.startswith("victim.apps.localhost") for host in await victim.hosts())


@pytest.mark.parametrize(
    ("version", "private"), [(2, False), (2, True), (3, False)], ids=["2-public", "2-private", "3-public"]
)
async def test_none_over_a_binary_version(world: World, version: int, private: bool) -> None:
    await world.start(tls="internal", listen_https=f"127.0.0.1:{free_port()}")
    port = int(world.settings.listen_https.rpartition(":")[2])
    root = world.settings.data_dir / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    victim, attacker = await publish(world, "victim", private), await publish(world, "attacker", private)
    ask = http2.ask if version == 2 else http3.ask
    key = [(b"x-mags-token", b"attacker")] if private else []

    async def own(name: str) -> None:
        fields = [
            (b":method", b"GET"), (b":scheme", b"https"), (b":authority", name.encode()), (b":path", b"/own"),
            (b"x-mags-token", name.partition(".")[0].encode()),
        ]  # fmt: skip
        assert await http2.ask(name, port, fields, authority=root) == (200, b"ok")

    for _ in range(2 if version == 2 else 1):  # to end a connection takes a while over QUIC
        await own(ATTACKER)
        for name, request in BINARY.items():
            if version == 3 and name == "empty-name":  # QPACK's encoder has no way to say that
                continue
            fields = request.headers(key)
            _, body = await ask(ATTACKER, port, fields, authority=root, body=request.body, trailers=request.trailers)
            assert body == b"ok" or name != "usual"
            await own(ATTACKER)
            assert set(await attacker.hosts()) == {ATTACKER}, name
            assert await victim.hosts() == [], name
    await own(VICTIM)
    assert await victim.hosts() == [VICTIM]
