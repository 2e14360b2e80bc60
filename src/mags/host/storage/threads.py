"""Threads for file operations on the volume, which may hang for as long as its object store does.

They are ours and not asyncio's, so that a hung volume leaves the rest of the program its threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from mags.host.storage.errors import StorageUnavailable

P = ParamSpec("P")
T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds for an operation on metadata unless the caller knows better."""


class Threads:
    """A bounded pool. Work that outlives its deadline goes on in its thread; only the waiting ends."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """StorageUnavailable after 60 s; whatever `work` raises."""
        return await self.run_within(TIMEOUT, lambda: work(*args, **kwargs))

    async def run_within(self, timeout: float, work: Callable[[], T]) -> T:
        """As `run`, with a deadline of `timeout` seconds."""
        future = self.start(work)
        done, _ = await asyncio.wait({future}, timeout=timeout)
        if not done:
            future.cancel()
            future.add_done_callback(_forget)
            raise StorageUnavailable(f"The volume of the workspaces did not answer within {timeout:g} s.")
        return future.result()

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """As long as it takes."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Takes no more work. A hung thread is left behind: nothing can end it."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _forget(future: asyncio.Future[T]) -> None:
    if not future.cancelled():
        future.exception()
