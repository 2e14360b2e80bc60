"""Whether a guest may change its files now."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum


class Permit(IntEnum):
    NO = 0
    """The guest waits and asks again."""
    AT_ONCE = 1
    """Now, but perhaps not in a moment: what it writes is stored before it is answered. JuiceFS would keep it for
    seconds else, and store it when the files may be another's."""
    FREELY = 2


Ask = Callable[[], Permit]
"""Asked in a thread before each change. May block."""


def freely() -> Permit:
    return Permit.FREELY
