"""Threads for file operations on the volume, which may hang for as long as its object store does.

They are ours and not asyncio's, so that a hung volume leaves the rest of the program its threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mags.host.storage.errors import StorageUnavailable

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds for an operation on metadata unless the caller knows better."""


class Threads:
    """A bounded pool. Work that outlives its deadline goes on in its thread; only the waiting ends."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run_within(self, timeout: float, work: Callable[[], T]) -> T:
        """StorageUnavailable after `timeout` seconds; whatever `work` raises."""
        future = self.start(work)
        try:
            await asyncio.wait({future}, timeout=timeout)
        finally:
            if not future.done():
                future.cancel()
        if future.cancelled():
            raise StorageUnavailable(f"The volume of the workspaces did not answer within {timeout:g} s.")
        return future.result()

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """As long as it takes."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Takes no more work. A hung thread is left behind: nothing can end it."""
        self._pool.shutdown(wait=False, cancel_futures=True)
