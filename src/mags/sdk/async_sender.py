"""Calls sent over a transport, with retries; a job's output followed over lost connections.

The CLI uses this directly; the clients are faces on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from mags.sdk import retries
from mags.sdk.answers import ENDLESS, Resumable, decoded, lost, refused, seconds_left, stream_tries
from mags.sdk.calls import jobs
from mags.sdk.calls.call import Call
from mags.sdk.errors import Busy, MagsError, NotReachable, TransferFailed
from mags.sdk.events import EventDecoder, record
from mags.sdk.frames import Chunk, Decoder, End
from mags.sdk.settings import Settings
from mags.sdk.transports import AGENT, AsyncExchange, AsyncTransport, ConnectionBroke, Request

T = TypeVar("T")


class AsyncSender:
    """`tries` is how often a request is sent at most; `sleep` waits between them."""

    def __init__(
        self,
        settings: Settings,
        transport: AsyncTransport,
        *,
        tries: int = retries.TRIES,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.settings, self._transport = settings, transport
        self._tries, self._sleep = max(1, tries), sleep

    async def send(self, call: Call[T]) -> T:
        """The decoded answer; {} for an empty one. Raises the tree of mags.sdk.errors."""
        async with self.open(call) as exchange:
            text = b"".join([chunk async for chunk in self.body(exchange)])
        return decoded(text)  # type: ignore[no-any-return]

    @asynccontextmanager
    async def open(self, call: Call[Any]) -> AsyncIterator[AsyncExchange]:
        """The answer of a call, its body still to come."""
        exchange = await self._open(call.request(self.settings.api_token, AGENT))
        try:
            yield exchange
        finally:
            await exchange.aclose()

    async def body(self, exchange: AsyncExchange) -> AsyncGenerator[bytes, None]:
        """The body of an open answer; NotReachable when it is cut off."""
        try:
            async for chunk in exchange.chunks():
                yield chunk
        except ConnectionBroke as broke:
            raise lost(self.settings, broke) from broke

    async def output(self, request_id: str, *, deadline: float | None = None) -> AsyncGenerator[Chunk | End, None]:
        """What a job's script writes, exactly, until it has ended; the last thing is an End.

        Goes on where it stopped when the connection is lost. `deadline`: time.monotonic() at which WaitTimeout comes.
        """
        decoder = Decoder()
        stream = self.resumed(lambda: jobs.frames(request_id, decoder.offsets), decoder, deadline)
        async with aclosing(stream):
            async for data in stream:
                for frame in decoder.feed(data):
                    yield frame
                if decoder.ended:
                    return
                if deadline is not None:
                    seconds_left(deadline)

    async def lines(
        self, request_id: str, *, since: str | None = None, tail: int | None = None, deadline: float | None = None
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """The same by lines: ("message", a line), at last ("end", how it ended). `since`, `tail`: where to begin."""
        decoder = EventDecoder()
        stream = self.resumed(
            lambda: jobs.events(request_id, decoder.last_id, since=since, tail=tail), decoder, deadline
        )
        async with aclosing(stream):
            async for data in stream:
                for event in decoder.feed(data):
                    yield event.name, record(event.data)
                    if event.name == "end":
                        return
                if deadline is not None:
                    seconds_left(deadline)

    async def resumed(
        self, call: Callable[[], Call[bytes]], decoder: Resumable, deadline: float | None
    ) -> AsyncGenerator[bytes, None]:
        """The body of a stream, opened again (with a new `call`) when it breaks off, until the reader has enough."""
        failures, begun = 0, False
        while True:
            wish = call()
            trouble: MagsError = TransferFailed(ENDLESS)
            try:
                within = wish if deadline is None else wish._replace(timeout=seconds_left(deadline))
                async with self.open(within) as exchange:
                    begun = True
                    async for data in exchange.chunks():
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
            await self._sleep(retries.backoff(failures))

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _open(self, request: Request) -> AsyncExchange:
        failures = 0
        while True:
            try:
                exchange = await self._transport.open_async(request)
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
                delay = retries.delay_after_answer(request, exchange.status, retry_after, failures, self._tries)
                if delay is None:
                    raise refused(exchange.status, await _rest(exchange), retry_after)
                await exchange.aclose()
            await self._sleep(delay)


async def _rest(exchange: AsyncExchange) -> bytes:
    """The body, as far as it comes; closes the exchange."""
    text = bytearray()
    try:
        async for chunk in exchange.chunks():
            text += chunk
    except ConnectionBroke:
        pass
    finally:
        await exchange.aclose()
    return bytes(text)
