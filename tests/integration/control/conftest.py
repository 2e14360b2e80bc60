"""A real control on a real database and real NATS, in this process, with a scripted host.

What goes to the records runs on SQLite and on PostgreSQL: the tests that use `mags` or `database_url`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from nats.aio.client import Client
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from mags.control.app.program import opened
from mags.control.app.serving import Server
from mags.control.config import Settings
from mags.control.lifecycles.world import World
from mags.control.records import accounts
from mags.kit.nats import connect
from tests.kit.nats_server import nats_server
from tests.kit.postgres import postgres
from tests.kit.scripted_host import ScriptedHost

PATIENCE = 60.0
TOKEN = "mags_test_" + "a" * 32
STRANGER = "mags_test_" + "b" * 32


@dataclass
class Installation:
    """What a test works with. `api` is the owner's client, `stranger` another user's."""

    folder: Path
    nats_url: str
    nats: Client
    world: World
    url: str
    api: httpx.AsyncClient
    stranger: httpx.AsyncClient
    stack: AsyncExitStack
    hosts: list[ScriptedHost] = field(default_factory=list)

    async def host(self, host_id: str = "h1", *, storage: str = "", start: bool = True) -> ScriptedHost:
        """A scripted host that control has heard of; the same one when it is there already."""
        for there in self.hosts:
            if there.host_id == host_id:
                return there
        home = self.folder / "hosts" / host_id
        home.mkdir(parents=True, exist_ok=True)
        host = ScriptedHost(self.nats, home, host_id=host_id, storage=storage)
        self.stack.push_async_callback(host.aclose)
        self.hosts.append(host)
        if start:
            await host.start()
            await until(lambda: self.world.hosts.get(host_id) is not None)
        return host

    async def submit(self, script: str = "echo hi", **fields: Any) -> str:
        answer = await self.api.post("/mags-jobs", json={"script": script, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["request_id"])

    async def status(self, reference: str) -> dict[str, Any]:
        answer = await self.api.get(f"/mags-jobs/{reference}/status")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert isinstance(body, dict)
        return body

    async def reaches(self, reference: str, *statuses: str) -> dict[str, Any]:
        """Wait until the job has one of the statuses."""
        async with asyncio.timeout(PATIENCE):
            while True:
                body = await self.status(reference)
                if body["status"] in statuses:
                    return body
                await asyncio.sleep(0.01)

    async def run(self, script: str = "echo hi", **fields: Any) -> dict[str, Any]:
        """Submit, and wait for the end."""
        return await self.reaches(await self.submit(script, **fields), "completed", "error")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def served(world: World) -> AsyncIterator[str]:
    """The API on a free port."""
    server = Server(world)
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or task.done())
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.stop()
        await task


def client(url: str, token: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers, timeout=PATIENCE, trust_env=False)


def settings(folder: Path, nats_url: str, **more: Any) -> Settings:
    token_file = folder / "token"
    token_file.write_text(TOKEN)
    database = more.pop("database_url", f"sqlite:///{folder}/control.db")
    return Settings(
        nats_url=nats_url,
        database_url=database,
        bootstrap_token_file=token_file,
        port=0,
        poll_interval_s=0.1,
        **more,
    )


@asynccontextmanager
async def installation(folder: Path, nats_url: str, **more: Any) -> AsyncIterator[Installation]:
    async with AsyncExitStack() as stack:
        nats = await connect(nats_url, name="test-hosts")
        stack.push_async_callback(nats.close)
        hosts = await stack.enter_async_context(AsyncExitStack())
        world = await stack.enter_async_context(opened(settings(folder, nats_url, **more)))
        async with world.db.write() as session:
            if await accounts.user_by_name(session, "stranger") is None:
                owner = await accounts.add_user(session, "stranger")
                await accounts.add_token(session, owner, STRANGER, name="test")
        url = await stack.enter_async_context(served(world))
        api = await stack.enter_async_context(client(url, TOKEN))
        stranger = await stack.enter_async_context(client(url, STRANGER))
        yield Installation(folder, nats_url, nats, world, url, api, stranger, hosts)
        await hosts.aclose()


DATABASES = ["sqlite", "postgresql"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """A PostgreSQL that tests make databases in."""
    with postgres() as url:
        yield url


async def empty_database(cluster: str) -> str:
    """The URL of a database of one's own in the cluster."""
    name = f"t{secrets.token_hex(8)}"
    engine = create_async_engine(cluster, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await engine.dispose()
    return f"{cluster.rpartition('/')[0]}/{name}"


async def _database(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{folder}/control.db"
    return await empty_database(request.getfixturevalue("cluster"))


@pytest_asyncio.fixture(loop_scope="module", params=DATABASES)
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    return await _database(request, tmp_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`mags` on both databases, unless the module has an own one, or says in DATABASES that its tests ask little."""
    if "mags" in metafunc.fixturenames and "mags" not in vars(metafunc.module):
        databases = getattr(metafunc.module, "DATABASES", DATABASES)
        metafunc.parametrize("mags", databases, indirect=True, scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def mags(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """One installation for a test module: its tests use names of their own."""
    folder = tmp_path_factory.mktemp("mags")
    async with alone(folder, database_url=await _database(request, folder)) as made:
        yield made


@asynccontextmanager
async def alone(folder: Path, **more: Any) -> AsyncIterator[Installation]:
    """An installation with a NATS server and settings of its own, for a test that breaks or waits for things."""
    (folder / "nats").mkdir()
    async with nats_server(folder / "nats", jetstream=True) as url:
        async with installation(folder, url, **more) as made:
            yield made
