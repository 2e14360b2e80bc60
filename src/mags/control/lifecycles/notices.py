"""Wake-ups inside this process: somebody waits for a record to change, somebody else has changed it.

A notice says only "look again". Nothing depends on it but speed: other controls change records too, so every waiter
looks by itself now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Notices:
    """Waiters by key (the id of a job or a VM)."""

    def __init__(self) -> None:
        self._waiters: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def watch(self, *keys: str) -> Iterator[asyncio.Event]:
        """An event that is set at each notice for any of the keys; clear it before looking."""
        event = asyncio.Event()
        for key in keys:
            self._waiters.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            for key in keys:
                waiters = self._waiters.get(key)
                if waiters is not None:
                    waiters.discard(event)
                    if not waiters:
                        del self._waiters[key]

    def tell(self, keys: Iterable[str]) -> None:
        for key in keys:
            for event in self._waiters.get(key, ()):
                event.set()


async def wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for a notice for at most `seconds`; True when there was one. Clears the event."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
        return True
    except TimeoutError:
        return False
    finally:
        event.clear()
