"""One edge with all of its parts, real NATS and Caddy, and a scripted host and control behind it."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from mags.edge.app import Edge
from mags.edge.config import Settings
from mags.kit import nats
from tests.kit import sessions
from tests.kit.nats_server import nats_server
from tests.kit.scripted_edge_host import ScriptedControl, ScriptedHost


def free_port() -> int:
    """A port that nobody listens on, below the range from which the kernel takes those of outgoing connections."""
    while True:
        port = random.randint(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@dataclass
class World:
    folder: Path
    nats_url: str
    host: ScriptedHost
    control: ScriptedControl
    stack: AsyncExitStack
    nats_stack: AsyncExitStack
    edge: Edge = field(init=False)
    settings: Settings = field(init=False)

    async def start(self, **wishes: Any) -> None:
        wishes.setdefault("activity_interval_s", 0.2)
        wishes.setdefault("listen_http", f"127.0.0.1:{free_port()}")
        self.settings = Settings(
            nats_url=self.nats_url,
            data_dir=self.folder / "edge",
            machine_id="here",
            edge_id="e1",
            ssh_port=0,
            **wishes,
        )
        self.edge = Edge(self.settings)
        await self.edge.start()
        self.stack.push_async_callback(self.edge.aclose)

    async def restart_nats(self) -> None:
        """The same server, away for a moment."""
        await self.nats_stack.aclose()
        for left in (self.folder / "nats").glob("*.ports"):
            left.unlink()
        port = int(self.nats_url.rpartition(":")[2])
        await self.nats_stack.enter_async_context(nats_server(self.folder / "nats", port=port))

    @property
    def http_port(self) -> int:
        return int(self.settings.listen_http.rpartition(":")[2])

    def host_header(self, label: str) -> dict[str, str]:
        return {"Host": f"{label}.{self.settings.apps_domain}:{self.http_port}"}

    def client(self) -> httpx.AsyncClient:
        """Of the edge; a request's `host_header` says which name."""
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.http_port}", timeout=60, trust_env=False)

    async def get(
        self, label: str, path: str = "/", *, method: str = "GET", headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """One request on a connection of its own."""
        async with self.client() as client:
            return await client.request(method, path, headers={**self.host_header(label), **(headers or {})}, **more)

    async def serve(self, handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> int:
        """A TCP server (a program in a VM) until the test ends; its port."""

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(served, "127.0.0.1", 0)
        self.stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    # Not tmp_path: the paths of sockets must stay short.
    with sessions.folder() as folder:
        async with AsyncExitStack() as stack:
            (folder / "nats").mkdir()
            (folder / "home").mkdir()
            port = free_port()
            server = AsyncExitStack()
            stack.push_async_callback(server.aclose)
            url = await server.enter_async_context(nats_server(folder / "nats", port=port))
            connection = await nats.connect(url, name="scripted")
            stack.push_async_callback(connection.close)
            host = ScriptedHost(connection, folder / "home")
            control = ScriptedControl(connection)
            await host.start()
            await control.start()
            stack.push_async_callback(host.aclose)
            yield World(folder, url, host, control, stack, server)
