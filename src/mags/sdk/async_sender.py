"""The asyncio twin of sender.Sender: the same rules, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from mags.sdk import retries
from mags.sdk.calls import jobs
from mags.sdk.calls.call import Call
from mags.sdk.errors import Busy, MagsError, NotReachable, TransferFailed, from_answer
from mags.sdk.frames import Chunk, Decoder, End
from mags.sdk.sender import AGENT, ENDLESS, Resumable, decoded, lost, seconds_left, stream_tries, tolerant
from mags.sdk.settings import Settings
from mags.sdk.transports import AsyncExchange, AsyncTransport, ConnectionBroke, Request

T = TypeVar("T")


class AsyncSender:
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
        async with self.open(call) as exchange:
            text = b"".join([chunk async for chunk in self.body(exchange)])
        return decoded(text)  # type: ignore[no-any-return]

    @asynccontextmanager
    async def open(self, call: Call[Any]) -> AsyncIterator[AsyncExchange]:
        exchange = await self._open(call.request(self.settings.api_token, AGENT))
        try:
            yield exchange
        finally:
            await exchange.aclose()

    async def body(self, exchange: AsyncExchange) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in exchange.chunks():
                yield chunk
        except ConnectionBroke as broke:
            raise lost(self.settings, broke) from broke

    async def output(self, request_id: str) -> AsyncGenerator[Chunk | End, None]:
        decoder = Decoder()
        async with aclosing(self.resumed(lambda: jobs.frames(request_id, decoder.offsets), decoder, None)) as stream:
            async for data in stream:
                for frame in decoder.feed(data):
                    yield frame
                if decoder.ended:
                    return

    async def resumed(
        self, call: Callable[[], Call[bytes]], decoder: Resumable, deadline: float | None
    ) -> AsyncGenerator[bytes, None]:
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
                delay = retries.delay_after_answer(exchange.status, retry_after, failures, self._tries)
                if delay is None:
                    raise await _refused(exchange)
                await exchange.aclose()
            await self._sleep(delay)


async def _refused(exchange: AsyncExchange) -> MagsError:
    try:
        text = b"".join([chunk async for chunk in exchange.chunks()])
    except ConnectionBroke:
        text = b""
    finally:
        await exchange.aclose()
    return from_answer(exchange.status, tolerant(text), exchange.headers.get("retry-after"))
