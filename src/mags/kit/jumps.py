"""Noticing that the wall clock was set, by the clock that nobody sets."""

from __future__ import annotations

import time
from collections.abc import Callable

MINUTE = 60.0
"""Seconds. Less is a correction, and nothing waits for so long."""


class Jumps:
    """`last` is asked now and then."""

    def __init__(self, *, wall: Callable[[], float] | None = None, steady: Callable[[], float] | None = None) -> None:
        self._wall = wall or (lambda: time.time())
        self._steady = steady or time.monotonic
        self._apart: float | None = None

    def last(self) -> float | None:
        """Seconds by which the clock was set forward (or back: negative) since the last call; None at the first."""
        apart = self._wall() - self._steady()
        before, self._apart = self._apart, apart
        return None if before is None else apart - before
