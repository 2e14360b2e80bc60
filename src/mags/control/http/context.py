"""The parts of the process, and the request's idempotency key, as dependencies of routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.requests import HTTPConnection

from mags.control.lifecycles.world import World
from mags.control.records.idempotency import MAX_KEY, Once, once


def the_world(connection: HTTPConnection) -> World:
    world = connection.app.state.world
    assert isinstance(world, World)
    return world


async def _world(request: Request) -> World:
    return the_world(request)


TheWorld = Annotated[World, Depends(_world)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY,
        description="The same key within a day gets the same answer, and nothing is made twice.",
    ),
]


async def the_once(request: Request, key: IdempotencyKey = None) -> Once | None:
    """What makes the request unique, from its key, method, path and body (None without a key)."""
    if key is None:
        return None
    return once(key, request.method, request.url.path, await request.body())
