"""Certificates of a real authority, over ACME: Caddy's own acme_server, which checks names by HTTP or by TLS as a
public one does."""

from __future__ import annotations

import random

import pytest

from mags.kit.process import Completed, run
from tests.integration.edge.acme import Authority, authority
from tests.integration.edge.world import World
from tests.kit.web import App


async def curl(ca: Authority, address: str, host: str, *words: str) -> Completed:
    argv = [
        "curl", "-sS", "--noproxy", "*", "--max-time", "60", "--cacert", str(ca.root),
        "--resolve", f"{host}:443:{address}", *words, f"https://{host}/path",
    ]  # fmt: skip
    return await run(argv, timeout=90, check=False)


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
async def test_names_of_ours_get_certificates_of_an_authority_and_others_are_not_asked_for(
    world: World, challenge: str
) -> None:
    address = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
    app, own = App(), App("own domain")
    async with authority(world.folder / "ca", address, challenge=challenge) as ca:
        await world.start(
            tls="acme",
            apps_domain="apps.example",
            acme_email="somebody@apps.example",
            acme_directory=ca.directory,
            acme_root=ca.root,
            listen_http=f"{address}:80",
            listen_https=f"{address}:443",
        )
        world.host.vm("v1", {8080: await world.serve(app)})
        world.host.vm("v2", {8080: await world.serve(own)})
        world.control.publish("shop", "v1")
        world.control.publish("www", "v2")
        world.control.names["www", "shop.example"] = world.control.names.pop(("www", None))
        world.control.certificates |= {"shop.apps.example", "www.shop.example"}

        shop = await curl(ca, address, "shop.apps.example", "--http2", "-w", "\n%{http_version} %{http_code}")
        domain = await curl(ca, address, "www.shop.example")
        unknown = await curl(ca, address, "nobody.apps.example")

        assert (shop.status, shop.text) == (0, "hello\n2 200"), shop.stderr
        assert (domain.status, domain.text) == (0, "own domain"), domain.stderr
        assert app.requests[0].headers["x-forwarded-proto"] == "https"
        assert unknown.status == 35  # CURLE_SSL_CONNECT_ERROR
        assert set(ca.names.asked) == {"shop.apps.example", "www.shop.example"}
        asked = len(ca.names.asked)
        assert (await curl(ca, address, "shop.apps.example")).status == 0
        assert len(ca.names.asked) == asked
