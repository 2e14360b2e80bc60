"""HTTPS: certificates on demand for our names only, HTTP/2 and HTTP/3, redirects. curl is the client."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from mags.kit.process import Completed, run
from tests.integration.edge import http3
from tests.integration.edge.world import World, free_port
from tests.kit.web import App


@pytest.fixture
async def app(world: World) -> App:
    """At https://shop.apps.localhost, with a certificate of Caddy's own authority."""
    made = App()
    await world.start(tls="internal", listen_https=f"127.0.0.1:{free_port()}")
    world.host.vm("v1", {8080: await world.serve(made)})
    world.control.publish("shop", "v1")
    world.control.certificates.add("shop.apps.localhost")
    return made


def authority(world: World) -> Path:
    return world.settings.data_dir / "caddy" / "pki" / "authorities" / "local" / "root.crt"


def https_port(world: World) -> str:
    return world.settings.listen_https.rpartition(":")[2]


async def curl(world: World, host: str, *words: str) -> Completed:
    port = https_port(world)
    argv = [
        "curl", "-sS", "--noproxy", "*", "--max-time", "60", "--cacert", str(authority(world)),
        "--resolve", f"{host}:{port}:127.0.0.1", *words, f"https://{host}:{port}/path",
    ]  # fmt: skip
    return await run(argv, timeout=90, check=False)


async def test_a_name_of_ours_gets_a_certificate_and_speaks_http_2(app: App, world: World) -> None:
    done = await curl(world, "shop.apps.localhost", "--http2", "-w", "\n%{http_version} %{http_code}")

    assert done.status == 0, done.stderr
    assert done.text == "hello\n2 200"
    assert app.requests[0].headers["x-forwarded-proto"] == "https"
    assert app.requests[0].headers["host"] == f"shop.apps.localhost:{https_port(world)}"


async def test_a_page_comes_over_http_3_too(app: App, world: World) -> None:
    """As Alt-Svc of the other versions says."""
    port = int(https_port(world))
    first = await curl(world, "shop.apps.localhost", "--http2", "-o", "/dev/null", "-D", "-")
    assert f'alt-svc: h3=":{port}"' in first.text.lower()

    headers, body = await http3.get("shop.apps.localhost", port, "/path", authority=authority(world))

    assert (headers[":status"], body) == ("200", b"hello")
    assert app.requests[-1].headers["x-forwarded-proto"] == "https"
    assert app.requests[-1].headers["host"] == f"shop.apps.localhost:{port}"


async def test_a_name_that_is_not_ours_gets_none(app: App, world: World) -> None:
    assert (await curl(world, "shop.apps.localhost")).status == 0

    other = await curl(world, "nobody.apps.localhost")

    assert other.status == 35  # CURLE_SSL_CONNECT_ERROR
    assert len(app.requests) == 1


async def test_a_certificate_of_one_name_does_not_open_another(app: App, world: World) -> None:
    """TLS for shop, then a Host of somebody else on the same connection: by name, or refused; never a mix."""
    world.control.publish("other", "v2")
    world.host.vm("v2", {8080: await world.serve(App("other"))})

    done = await curl(
        world, "shop.apps.localhost", "--http2", "-H", "Host: other.apps.localhost", "-w", " %{http_code}"
    )

    assert done.text in ("other 200", " 421")


async def test_plain_http_leads_to_https(app: App, world: World) -> None:
    seen = await world.get("shop", "/a?b=c")

    assert seen.status_code == 308
    assert seen.headers["location"] == f"https://shop.apps.localhost:{https_port(world)}/a?b=c"


async def test_old_versions_of_tls_are_refused(app: App, world: World) -> None:
    assert (await curl(world, "shop.apps.localhost")).status == 0
    context = ssl.create_default_context(cafile=authority(world))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)):
        await asyncio.open_connection(
            "127.0.0.1", int(https_port(world)), ssl=context, server_hostname="shop.apps.localhost"
        )
