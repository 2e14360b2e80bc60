"""When a request is sent again, and how long we wait before. Pure.

Again: an answer 429 or 503 (the server did nothing), a connection that was refused (it saw nothing), and a lost
connection when repeating can do no harm: the method is idempotent by itself or carries an Idempotency-Key.
Never: a time-out (the server may be at work), any other answer, what was read from a pipe and can't be read again.
"""

from __future__ import annotations

import os

from mags.sdk.transports import ConnectionBroke, Request

TRIES = 5
"""How often a request is sent at most, unless the client was told otherwise."""
FIRST_DELAY, LONGEST_DELAY = 0.1, 2.0
"""Seconds; doubled with each try."""
LONGEST_WISH = 30.0
"""Seconds of a server's Retry-After that are honoured; a longer one is reported instead."""

_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})


def is_repeatable(request: Request) -> bool:
    return not request.single and (request.method in _REPEATABLE or "Idempotency-Key" in request.headers)


def backoff(failures: int, chance: float | None = None) -> float:
    """Seconds before the try after `failures` failures; `chance` in [0, 1) spreads clients out (default random)."""
    delay = min(FIRST_DELAY * 2.0 ** (failures - 1), LONGEST_DELAY)
    return delay * (0.75 + 0.5 * (os.urandom(1)[0] / 256 if chance is None else chance))


def delay_after_answer(
    request: Request, status: int, retry_after: str | None, failures: int, tries: int
) -> float | None:
    """Seconds to wait before trying again; None: take the answer as it is."""
    if status not in (429, 503) or failures >= tries or request.single:
        return None
    if retry_after is not None and retry_after.isdigit():
        wish = float(retry_after)
        return max(wish, backoff(failures)) if wish <= LONGEST_WISH else None
    return backoff(failures)


def delay_after_loss(request: Request, broke: ConnectionBroke, failures: int, tries: int) -> float | None:
    if failures >= tries or broke.timed_out or (broke.sent and not is_repeatable(request)):
        return None
    return backoff(failures)
