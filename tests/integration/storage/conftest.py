"""Real JuiceFS volumes: on a local directory, and on a real S3 service (SeaweedFS, started once)."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from mags.host.storage.config import StorageSettings
from mags.host.storage.engine import Engine
from mags.host.storage.seaweedfs import SeaweedFS
from mags.protocol.ids import new_id
from tests.integration.storage.volumes import OpenEngine


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of its own, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="mags-st-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def seaweed() -> AsyncIterator[SeaweedFS]:
    with tempfile.TemporaryDirectory(prefix="mags-weed-", ignore_cleanup_errors=True) as directory:
        server = SeaweedFS(Path(directory))
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@pytest.fixture
def s3_settings(seaweed: SeaweedFS) -> StorageSettings:
    """A new volume in a bucket of its own."""
    name = f"t{new_id()[:8]}"
    return StorageSettings(
        kind="s3",
        volume=name,
        bucket=name,
        endpoint=seaweed.endpoint,
        access_key=seaweed.access_key,
        secret_key=seaweed.secret_key,
        put_timeout_s=3,
        get_timeout_s=3,
    )


@pytest_asyncio.fixture
async def open_engine() -> AsyncIterator[OpenEngine]:
    """Opens engines and unmounts them at the end."""
    async with AsyncExitStack() as stack:

        async def opened(directory: Path, settings: StorageSettings | None = None, *, host_id: str = "h1") -> Engine:
            engine = await Engine.open(settings or StorageSettings(kind="local"), directory, host_id=host_id)
            stack.push_async_callback(engine.close, unmount=True)
            return engine

        yield opened


@pytest_asyncio.fixture
async def engine(place: Path, open_engine: OpenEngine) -> Engine:
    return await open_engine(place)
