from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mags.host.guest import Channel
from tests.guest import fuzzing, kit


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The fuzzers run beside all other tests; their ends come last."""
    items.sort(key=lambda item: item.nodeid.startswith("tests/guest/test_fuzzing"))


@pytest.fixture(scope="session", autouse=True)
def fuzzers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of those that this session asks for, begun."""
    tmp_path_factory.getbasetemp()  # whose place is emptied first
    folder = fuzzing.place(request.config)
    names = " ".join(item.name for item in request.session.items)
    for harness in fuzzing.HARNESSES:
        if f"finds_nothing[{harness}]" in names:
            fuzzing.begin(harness, folder)
    return folder


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
