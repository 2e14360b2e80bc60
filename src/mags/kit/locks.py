"""A lock between processes: flock(2) on a file, waited for without blocking the event loop.

The kernel drops it when its holder dies, so nothing is ever stale; the file itself is left behind on purpose
(removing it would let two holders lock two different files of one name).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

INTERVAL = 0.05
"""Seconds between two tries."""


@asynccontextmanager
async def exclusive(path: Path, *, timeout: float) -> AsyncIterator[bool]:
    """Hold the lock; the value says whether we had to wait for another holder. TimeoutError after `timeout` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    waited = False
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waited = True
                    await asyncio.sleep(INTERVAL)
        yield waited
    finally:
        os.close(descriptor)
