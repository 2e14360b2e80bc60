from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mags.host.guest import Channel
from tests.guest import kit


@pytest.fixture(scope="session")
def program() -> Path:
    """The agent with sanitizers."""
    return kit.build("build/mags-agent-asan")


@pytest.fixture
async def agent(program: Path, tmp_path: Path) -> AsyncIterator[kit.Agent]:
    async with kit.serving(program, tmp_path) as served:
        yield served


@pytest.fixture
async def channel(agent: kit.Agent) -> AsyncIterator[Channel]:
    connected = await agent.connect()
    yield connected
    await connected.aclose()
