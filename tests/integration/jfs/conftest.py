"""Exports of directories on a real JuiceFS mount, and clients of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from mags.host.jfs import Export, Exports
from mags.host.storage.config import StorageSettings
from mags.host.storage.engine import Engine
from tests.integration.jfs.client import Client
from tests.kit import sessions


@pytest.fixture
def place() -> Iterator[Path]:
    with sessions.folder() as directory:
        yield directory


@pytest_asyncio.fixture
async def engine(place: Path) -> AsyncIterator[Engine]:
    engine = await Engine.open(StorageSettings(kind="local"), place / "host", host_id="h1")
    try:
        yield engine
    finally:
        await engine.close(unmount=True)


@pytest.fixture
def directory(engine: Engine) -> Path:
    path = engine.mount.point / "jfs"
    path.mkdir()
    (engine.mount.point / "outside").write_text("secret")
    return path


@pytest_asyncio.fixture
async def exports(place: Path, engine: Engine) -> AsyncIterator[Exports]:
    exports = await Exports.open(place)
    try:
        yield exports
    finally:
        await exports.close()


@pytest_asyncio.fixture
async def export(exports: Exports, directory: Path) -> Export:
    return await exports.add("vm", "127.0.0.1", directory)


@pytest_asyncio.fixture
async def client(export: Export) -> AsyncIterator[Client]:
    async with AsyncExitStack() as stack:
        client = await Client.connect("127.0.0.1", export.port)
        stack.push_async_callback(client.aclose)
        yield client
