"""Whether control has heard of this host lately. As long as it has, it gives nothing that is here to another host.

    presence said at t --control answers--> holds until t + a part of what control waits before it counts us as lost

After that it may, or is only being restarted: who needs to know looks at the store. By a clock that nobody sets, and
that goes on while the machine is suspended.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SHARE = 0.75
"""Of what control waits. The rest is for what was allowed just before and is still on its way, JuiceFS's five seconds
until it stores what was written among that."""


def moment() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Hearing:
    """Of one host. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = moment) -> None:
        self.clock = clock
        self._until = 0.0

    def heard(self, said_at: float, lost_after_s: float) -> None:
        """Control has answered to what was said then."""
        self._until = max(self._until, said_at + SHARE * lost_after_s)

    @property
    def holds(self) -> bool:
        return self.clock() < self._until
