"""Which wishes a VM takes in which state. Pure: a state and a wish in, a verdict out.

|            | run, use | cancel  | stop    | sleep   | wake    | sync, resize |
|------------|----------|---------|---------|---------|---------|--------------|
| restoring  | queued   | queued  | queued  | denied  | ignored | queued       |
| ready      | queued   | ignored | queued  | queued  | ignored | queued       |
| running    | queued   | queued  | queued  | queued  | ignored | queued       |
| parked     | queued   | ignored | queued  | queued  | ignored | queued       |
| sleeping   | queued   | queued  | queued  | ignored | queued  | queued       |
| stopping   | denied   | ignored | ignored | denied  | denied  | denied       |
| gone       | denied   | ignored | ignored | denied  | denied  | denied       |
| failed     | denied   | ignored | ignored | denied  | denied  | denied       |

`use` is whatever needs the guest without being a script: exec, sessions, files, a connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from mags.protocol.errors import Problem
from mags.protocol.states import VmState


class Wish(StrEnum):
    RUN = "run"
    USE = "use"
    CANCEL = "cancel"
    STOP = "stop"
    SLEEP = "sleep"
    WAKE = "wake"
    SYNC = "sync"
    RESIZE = "resize"


@dataclass(frozen=True, slots=True)
class Queued:
    """The driver will see to it."""

    queued: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Ignored:
    """It is so already."""

    queued: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Denied:
    """It can't be."""

    queued: ClassVar[bool] = False
    problem: Problem


Verdict = Queued | Ignored | Denied

_V = VmState
_ENDED = frozenset({_V.STOPPING, _V.GONE, _V.FAILED})
_IGNORED: dict[Wish, frozenset[VmState]] = {
    Wish.CANCEL: frozenset({_V.READY, _V.PARKED}) | _ENDED,
    Wish.STOP: _ENDED,
    Wish.SLEEP: frozenset({_V.SLEEPING}),
    Wish.WAKE: frozenset({_V.RESTORING, _V.READY, _V.RUNNING, _V.PARKED}),
}


def judge(state: VmState, wish: Wish, *, reason: str = "") -> Verdict:
    """What becomes of a wish in a state; `reason` says why the VM failed, if it did."""
    if state in _IGNORED.get(wish, ()):
        return Ignored()
    if state in _ENDED:
        return Denied(_ended(state, reason))
    if wish is Wish.SLEEP and state is _V.RESTORING:
        return Denied(Problem("conflict", "The VM is still coming up: try again in a moment."))
    return Queued()


def _ended(state: VmState, reason: str) -> Problem:
    if state is _V.FAILED:
        return Problem("gone", f"The VM has failed{': ' + reason if reason else ''}. Start another.")
    word = "is being stopped" if state is _V.STOPPING else "was stopped"
    return Problem("gone", f"The VM {word}. Start another.")
