"""A world of our own for each module, and a pool in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mags.host.network import NamespacePool, kernel
from tests.kit.networks import ROUTER, Guest, World


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Path]:
    """The directory of names of namespaces; a test that fails half way leaves none of them mounted."""
    directory = tmp_path / "run"
    yield directory
    for left in directory.glob("*/net/*"):
        kernel.unpin(left)


@pytest.fixture
async def pool(world: World, tmp_path: Path, runtime: Path) -> AsyncIterator[NamespacePool]:
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0, dns=[ROUTER])
    yield pool
    await pool.sweep(())
    await pool.aclose()


@pytest.fixture
async def guest(pool: NamespacePool) -> AsyncIterator[Guest]:
    namespace = await pool.take()
    guest = Guest(namespace)
    yield guest
    guest.close()
    await pool.release(namespace)
