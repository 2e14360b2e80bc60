"""The wall clock of the test's own process, set wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def movable() -> Iterator[Callable[[float], None]]:
    """Yields what moves the clock by seconds; it is right again at the end."""
    apart = [0.0]
    wall, wall_ns = time.time, time.time_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: wall() + apart[0])
        patch.setattr(time, "time_ns", lambda: wall_ns() + int(apart[0] * 1e9))

        def move(seconds: float) -> None:
            apart[0] += seconds

        yield move
