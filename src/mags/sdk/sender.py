"""Calls sent over a transport, with retries; a job's output followed over lost connections.

The CLI uses this directly; Mags is a face on it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from mags.sdk import retries
from mags.sdk.calls import jobs
from mags.sdk.calls.call import Call
from mags.sdk.errors import Busy, MagsError, NotReachable, TransferFailed, WaitTimeout, from_answer
from mags.sdk.frames import Chunk, Decoder, End
from mags.sdk.settings import Settings
from mags.sdk.transports import ConnectionBroke, Exchange, Request, Transport

T = TypeVar("T")
AGENT = f"mags/0.1 python/{sys.version_info[0]}.{sys.version_info[1]}"


ENDLESS = "The server keeps ending the output before the script has ended."


class Resumable(Protocol):
    def reconnected(self) -> None:
        """What was half received comes again."""


class Sender:
    """`tries` is how often a request is sent at most; `sleep` waits between them."""

    def __init__(
        self,
        settings: Settings,
        transport: Transport,
        *,
        tries: int = retries.TRIES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings, self._transport = settings, transport
        self._tries, self._sleep = max(1, tries), sleep

    def send(self, call: Call[T]) -> T:
        """The decoded answer; {} for an empty one. Raises the tree of mags.sdk.errors."""
        with self.open(call) as exchange:
            try:
                text = b"".join(exchange.chunks())
            except ConnectionBroke as broke:
                raise lost(self.settings, broke) from broke
        return decoded(text)  # type: ignore[no-any-return]

    @contextmanager
    def open(self, call: Call[Any]) -> Iterator[Exchange]:
        """The answer of a call, its body still to come."""
        exchange = self._open(call.request(self.settings.api_token, AGENT))
        try:
            yield exchange
        finally:
            exchange.close()

    def body(self, exchange: Exchange) -> Iterator[bytes]:
        """The body of an open answer; NotReachable when it is cut off."""
        try:
            yield from exchange.chunks()
        except ConnectionBroke as broke:
            raise lost(self.settings, broke) from broke

    def output(self, request_id: str, *, deadline: float | None = None) -> Iterator[Chunk | End]:
        """What a job's script writes, exactly, until it has ended; the last thing is an End.

        Goes on where it stopped when the connection is lost. `deadline`: time.monotonic() at which WaitTimeout comes.
        """
        decoder = Decoder()
        for data in self.resumed(lambda: jobs.frames(request_id, decoder.offsets), decoder, deadline):
            yield from decoder.feed(data)
            if decoder.ended:
                return
            if deadline is not None:
                seconds_left(deadline)

    def resumed(self, call: Callable[[], Call[bytes]], decoder: Resumable, deadline: float | None) -> Iterator[bytes]:
        """The body of a stream, opened again (with a new `call`) when it breaks off, until the reader has enough."""
        failures, begun = 0, False
        while True:
            wish = call()
            trouble: MagsError = TransferFailed(ENDLESS)
            try:
                with self.open(wish if deadline is None else wish._replace(timeout=seconds_left(deadline))) as exchange:
                    begun = True
                    for data in exchange.chunks():
                        failures = 0
                        yield data
            except ConnectionBroke as broke:
                trouble = lost(self.settings, broke)
            except (NotReachable, Busy) as error:
                trouble = error
            if deadline is not None:
                seconds_left(deadline)
            failures += 1
            if not begun or failures >= stream_tries(self._tries, trouble):
                raise trouble
            decoder.reconnected()
            self._sleep(retries.backoff(failures))

    def close(self) -> None:
        self._transport.close()

    def _open(self, request: Request) -> Exchange:
        failures = 0
        while True:
            try:
                exchange = self._transport.open(request)
            except ConnectionBroke as broke:
                failures += 1
                delay = retries.delay_after_loss(request, broke, failures, self._tries)
                if delay is None:
                    raise lost(self.settings, broke) from broke
            else:
                if exchange.status < 400:
                    return exchange
                failures += 1
                retry_after = exchange.headers.get("retry-after")
                delay = retries.delay_after_answer(exchange.status, retry_after, failures, self._tries)
                if delay is None:
                    raise refused(exchange)
                exchange.close()
            self._sleep(delay)


def stream_tries(tries: int, trouble: MagsError) -> int:
    """How often a stream is opened without anything new: about a minute while the server is away."""
    return tries if isinstance(trouble, TransferFailed) else 8 * tries


def seconds_left(deadline: float) -> float:
    """Seconds of silence to allow; WaitTimeout when there are none left."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise WaitTimeout("It did not end in the time given. It is still running: see `status`, or stop it.")
    return min(left + 0.1, jobs.STREAM_TIMEOUT)


def refused(exchange: Exchange) -> MagsError:
    try:
        text = b"".join(exchange.chunks())
    except ConnectionBroke:
        text = b""
    finally:
        exchange.close()
    return from_answer(exchange.status, tolerant(text), exchange.headers.get("retry-after"))


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


def decoded(text: bytes) -> Any:
    if not text:
        return {}
    try:
        return json.loads(text)
    except ValueError as error:
        raise TransferFailed("The server answered something that is no JSON. Is MAGS_API_URL a Mags server?") from error


def tolerant(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")
