"""Real JuiceFS volumes: on a local directory, and on a real S3 service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from mags.host.storage.config import StorageSettings
from mags.host.storage.engine import Engine
from mags.host.storage.seaweedfs import SeaweedFS
from tests.integration.storage.volumes import OpenEngine
from tests.kit import sessions
from tests.kit.objectstore import new_volume


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of its own, removed at the end."""
    with sessions.folder() as directory:
        yield directory


@pytest.fixture
def s3_settings(seaweed: SeaweedFS) -> StorageSettings:
    return new_volume(seaweed)


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
