"""Noticing that the wall clock was set back, by the clock that nobody sets."""

from __future__ import annotations

import time
from collections.abc import Callable

MINUTE = 60.0


class SetBack:
    """`noticed` is asked now and then."""

    def __init__(self, *, wall: Callable[[], float] | None = None, steady: Callable[[], float] | None = None) -> None:
        self._wall = wall or (lambda: time.time())
        self._steady = steady or time.monotonic
        self._apart: float | None = None

    def noticed(self) -> bool:
        """Whether it was set back by a minute or more since the last call. At the first call: who knows; True."""
        apart = self._wall() - self._steady()
        before, self._apart = self._apart, apart
        return before is None or apart < before - MINUTE
