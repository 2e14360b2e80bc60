"""The public edge against Caddy that proxies straight to the same backend over TCP: what our way in costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from bench.table import Row, row
from mags.kit import nats
from mags.kit.children import Child
from mags.kit.process import run
from mags.kit.programs import find
from tests.integration.edge.world import free_port
from tests.kit import sessions
from tests.kit.nats_server import nats_server
from tests.kit.scripted_edge_host import ScriptedControl, ScriptedHost

REQUESTS, CONNECTIONS, ROUNDS = 8000, 16, 7


async def measure() -> list[Row]:
    straight: list[float] = []
    through: list[float] = []
    latencies: dict[str, list[float]] = {"straight": [], "through": []}
    async with setting() as (straight_port, edge_port):
        for port, host in ((straight_port, "x"), (edge_port, "shop.apps.localhost")):
            await ask(port, host, 500, CONNECTIONS)
        for _ in range(ROUNDS):
            straight.append(REQUESTS / (await ask(straight_port, "x", REQUESTS, CONNECTIONS))[0])
            through.append(REQUESTS / (await ask(edge_port, "shop.apps.localhost", REQUESTS, CONNECTIONS))[0])
            latencies["straight"] += (await ask(straight_port, "x", 200, 1))[1]
            latencies["through"] += (await ask(edge_port, "shop.apps.localhost", 200, 1))[1]
    baseline = row("requests/s, Caddy straight to the backend", "1/s", straight)
    one = row("one request, Caddy straight to the backend", "ms", latencies["straight"])
    return [
        baseline,
        row(
            "requests/s through the edge", "1/s", through, goal=0.8 * baseline.median, at_least=True, baseline=baseline
        ),
        one,
        row("one request through the edge", "ms", latencies["through"], goal=one.median + 10, baseline=one),
    ]


async def ask(port: int, host: str, requests: int, connections: int) -> tuple[float, list[float]]:
    words = ["load", str(port), host, str(requests), str(connections)]
    done = await run([sys.executable, "-m", "bench.edge_parts", *words], timeout=180)
    seconds, latencies = json.loads(done.stdout)
    return seconds, latencies


@asynccontextmanager
async def setting() -> AsyncIterator[tuple[int, int]]:
    """Ports of Caddy before the backend, and of an edge whose name "shop" leads there."""
    with sessions.folder() as folder:
        async with AsyncExitStack() as stack:
            backend_port = await stack.enter_async_context(a_backend())
            straight_port, edge_port = free_port(), free_port()
            caddy = folder / "caddy.json"
            caddy.write_text(json.dumps(straight(straight_port, backend_port)))
            await child(stack, folder, "caddy", [find("caddy"), "run", "--config", caddy], straight_port)

            (folder / "nats").mkdir()
            url = await stack.enter_async_context(nats_server(folder / "nats"))
            connection = await nats.connect(url, name="scripted")
            stack.push_async_callback(connection.close)
            host, control = ScriptedHost(connection, folder), ScriptedControl(connection)
            await host.start()
            await control.start()
            host.vm("v1", {8080: backend_port})
            control.publish("shop", "v1")
            environment = {
                "PATH": "/usr/bin:/bin",
                "MAGS_EDGE_NATS_URL": url,
                "MAGS_EDGE_DATA_DIR": str(folder / "edge"),
                "MAGS_EDGE_MACHINE_ID": host.machine_id,
                "MAGS_EDGE_LISTEN_HTTP": f"127.0.0.1:{edge_port}",
                "MAGS_EDGE_SSH_PORT": "0",
            }
            await child(stack, folder, "edge", [sys.executable, "-m", "mags.edge"], edge_port, environment)
            yield straight_port, edge_port


@asynccontextmanager
async def a_backend() -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.edge_parts",
        "backend",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.stdin.close()
        await process.wait()


async def child(
    stack: AsyncExitStack,
    folder: Path,
    name: str,
    argv: list[Any],
    port: int,
    environment: dict[str, str] | None = None,
) -> None:
    async def ready() -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        return False

    made = Child(name, argv, log_file=folder / f"{name}.log", ready=ready, env=environment)
    await made.start()
    stack.push_async_callback(made.stop)


def straight(port: int, backend_port: int) -> dict[str, Any]:
    """Caddy as one would set it up without us, with as many kept connections as ours keeps."""
    proxy = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"127.0.0.1:{backend_port}"}],
        "transport": {"protocol": "http", "keep_alive": {"max_idle_conns_per_host": 256}},
    }
    server = {
        "listen": [f"127.0.0.1:{port}"],
        "automatic_https": {"disable": True},
        "protocols": ["h1"],
        "routes": [{"handle": [proxy]}],
    }
    return {
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {"logs": {"default": {"level": "ERROR"}}},
        "apps": {"http": {"servers": {"straight": server}}},
    }
