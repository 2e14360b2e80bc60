"""Fixtures of tests with a real host program and a NATS server. A folder's conftest imports them and so has both of its
own; VMs are small, and share a template with all other tests."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.kit import vms
from tests.kit.host_world import Caller, HostProgram
from tests.kit.nats_server import NatsProgram


@pytest.fixture(scope="session")
def image_cache() -> Path:
    """The shared images, Alpine among them."""
    return asyncio.run(vms.open_images()).cache


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
    """May be killed by a test. At the end a last one takes up whatever is left, and ends it."""
    program = HostProgram(tmp_path_factory.mktemp("host"), nats_program.url, image_cache)
    program.start()
    yield program
    if program.running:
        program.kill()
    program.start(pool_target=0)
    asyncio.run(_end_all(nats_program.url))
    assert program.kill(signal.SIGTERM) == 0


async def _end_all(url: str) -> None:
    async with Caller.connect(url) as caller:
        await caller.end_all()


@pytest.fixture
async def caller(host: HostProgram, nats_program: NatsProgram) -> AsyncIterator[Caller]:
    """The host is up before and after; no VM is left."""
    if not host.running:
        host.start()
    async with Caller.connect(nats_program.url) as caller:
        await caller.ready()
        yield caller
        if not host.running:
            host.start()
        await caller.end_all()
