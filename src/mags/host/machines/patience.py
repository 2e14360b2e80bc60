"""How long a sleeping VM whose files are on this host only has been kept, counted so that no jump of the clock ends it.

Seconds are counted while a host program runs, and noted in the VM's record; what passes while none runs does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mags.host.machines.record import Record

NOTE_S = 600.0
"""How often the count is noted: a program that is killed forgets no more than that."""


class Patience:
    """Of one machine."""

    def __init__(
        self, record: Record, write: Callable[[], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._record, self._write, self._clock = record, write, clock
        self._counted = clock()

    def begin(self) -> None:
        """It falls asleep now. The caller writes the record."""
        self._record.slept_s, self._counted = 0.0, self._clock()

    def next_look(self, limit: float) -> float:
        """Seconds until `is_over` is to be asked (again). limit: seconds that such a VM is kept."""
        return min(NOTE_S, max(0.0, limit - self._slept()))

    def is_over(self, limit: float) -> bool:
        """Whether it has slept for `limit` seconds. The count is noted."""
        self._record.slept_s, self._counted = self._slept(), self._clock()
        self._write()
        return self._record.slept_s >= limit

    def _slept(self) -> float:
        return self._record.slept_s + self._clock() - self._counted
