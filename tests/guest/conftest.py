from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mags.host.guest import Channel
from tests.guest import kit
from tests.guest.fuzzing import HARNESSES, Fuzzer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The fuzzers run beside all other tests; their ends come last."""
    items.sort(key=lambda item: item.nodeid.startswith("tests/guest/test_fuzzing"))


@pytest.fixture(scope="session", autouse=True)
def fuzzers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Fuzzer]]:
    """Those that this session asks for, begun."""
    names = " ".join(item.name for item in request.session.items)
    wanted = [harness for harness in HARNESSES if f"finds_nothing[{harness}]" in names]
    started = {name: Fuzzer(name, HARNESSES[name](), tmp_path_factory.mktemp(name)) for name in wanted}
    yield started
    for fuzzer in started.values():
        fuzzer.end()


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
