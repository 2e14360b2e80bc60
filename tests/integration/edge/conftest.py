"""Fixtures of the edge's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.edge.ssh_client import Client, make_client
from tests.integration.edge.world import World, a_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Not started yet: call `world.start(**settings)`."""
    async with a_world() as made:
        yield made


@pytest.fixture
async def client(world: World) -> Client:
    """An SSH client of a started world, that may open "dev"."""
    await world.start()
    world.host.vm("v1")
    made = make_client(world)
    made.grant()
    return made
