"""A host program of its own for the tests of sleep: what they do to it is hard on others."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.kit.host_world import Caller, HostProgram, NatsProgram
from tests.vm.machines.conftest import image_cache

__all__ = ["image_cache"]


@pytest.fixture(scope="session")
def nats_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsProgram]:
    program = NatsProgram(tmp_path_factory.mktemp("nats"))
    program.start()
    yield program
    program.kill()


@pytest.fixture(scope="session")
def host(
    tmp_path_factory: pytest.TempPathFactory, image_cache: Path, nats_program: NatsProgram
) -> Iterator[HostProgram]:
    program = HostProgram(tmp_path_factory.mktemp("host"), nats_program.url, image_cache)
    program.start()
    yield program
    if program.running:
        assert program.kill(signal.SIGTERM) == 0


@pytest.fixture
async def caller(host: HostProgram, nats_program: NatsProgram) -> AsyncIterator[Caller]:
    if not host.running:
        host.start()
    async with Caller.connect(nats_program.url) as caller:
        await caller.ready()
        yield caller
        if not host.running:
            host.start()
        await caller.end_all()
