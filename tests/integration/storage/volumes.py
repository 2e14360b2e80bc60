"""What the tests of volumes share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mags.host.storage.engine import Engine

OpenEngine = Callable[..., Awaitable[Engine]]


async def until(true: Callable[[], bool], timeout: float = 60.0) -> None:
    """Wait for something; TimeoutError after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.05)
