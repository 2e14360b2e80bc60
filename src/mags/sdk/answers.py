"""What the clients make of an answer, or of none; and how long they go on with a stream. Pure."""

from __future__ import annotations

import json
import time
from typing import Any, Protocol

from mags.sdk.calls import jobs
from mags.sdk.errors import MagsError, NotReachable, TransferFailed, WaitTimeout, from_answer
from mags.sdk.settings import Settings
from mags.sdk.transports import ConnectionBroke

ENDLESS = "The server keeps ending the output before the script has ended."


class Resumable(Protocol):
    """Takes a stream apart that may break off."""

    def reconnected(self) -> None:
        """What was half received comes again."""


def decoded(text: bytes) -> Any:
    """A JSON answer; {} for an empty one."""
    if not text:
        return {}
    try:
        return json.loads(text)
    except ValueError as error:
        raise TransferFailed("The server answered something that is no JSON. Is MAGS_API_URL a Mags server?") from error


def refused(status: int, text: bytes, retry_after: str | None) -> MagsError:
    """The error that an answer of `status` >= 400 says."""
    body: object
    try:
        body = json.loads(text)
    except ValueError:
        body = text.decode(errors="replace")
    return from_answer(status, body, retry_after)


def lost(settings: Settings, broke: ConnectionBroke) -> NotReachable:
    """The sentence for a request without an answer."""
    if broke.refused:
        return NotReachable(f"No server at {settings.api_url}. Start one with `mags up`, or set MAGS_API_URL.")
    if not broke.sent:
        return NotReachable(f"{settings.api_url} can't be reached ({broke}). Is MAGS_API_URL right?")
    if broke.timed_out:
        return NotReachable(
            f"{settings.api_url} did not answer ({broke}). It may still be at work: look before you retry."
        )
    return NotReachable(f"The connection to {settings.api_url} was lost ({broke}). Try again.")


def stream_tries(tries: int, trouble: MagsError) -> int:
    """How often a stream is opened without anything new: about a minute while the server is away."""
    return tries if isinstance(trouble, TransferFailed) else 8 * tries


def seconds_left(deadline: float) -> float:
    """Seconds of silence to allow until time.monotonic() is `deadline`; WaitTimeout when there are none left."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise WaitTimeout("It did not end in the time given. It is still running: see `status`, or stop it.")
    return min(left + 0.1, jobs.STREAM_TIMEOUT)
