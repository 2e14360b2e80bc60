"""What a step of a lifecycle returns: what comes next. A step that forgets does not type-check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hop:
    """Go on with this step at once."""

    step: str


@dataclass(frozen=True, slots=True)
class Nap:
    """Take this step up again in so many seconds, by whoever finds it then."""

    seconds: float
    step: str


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing more to do; events carry it on, or it is over."""


Next = Hop | Nap | Done
