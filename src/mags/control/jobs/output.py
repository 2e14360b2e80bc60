"""A job's output, read from JetStream: what there is, and then what comes.

Messages carry the offset of their bytes, so a reader knows what it has had, whatever way a message came. What is stored
is read by direct gets in batches, which leave nothing behind on the server when a reader vanishes. New messages come by
a plain subscription of bounded size: a reader that is too slow for them, or sees a gap, reads the stored ones again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from mags.protocol import messages, subjects
from mags.protocol.errors import Problem
from mags.protocol.messages import Output, OutputEnd

BATCH = 256
BATCH_BYTES = 4 << 20
READ_TIMEOUT = 10.0
LIVE_MESSAGES, LIVE_BYTES = 4096, 8 << 20
"""New messages that wait for a slow reader; more are dropped and read from the stored ones."""
FIRST_LOOK, LAST_LOOK = 0.5, 10.0
"""Seconds of silence before the stored messages are looked at, should a notice have been lost; doubled each time."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing has come for a while."""

    seconds: float


class OutputReader:
    """One reader of one job. `positions`: the bytes of each stream that it has already."""

    def __init__(self, connection: Client, job_id: str, positions: dict[int, int] | None = None) -> None:
        self.positions = {1: 0, 2: 0, 3: 0, **(positions or {})}
        self._connection = connection
        self._subject = subjects.output(job_id)
        self._next = 1
        self._inbox: Subscription | None = None
        self._reply = ""
        self._ahead = False

    async def stored(self) -> AsyncGenerator[Output | OutputEnd, None]:
        """What is stored now, to its end. Problem(unavailable) when the messages can't be read."""
        try:
            pending = 1
            while pending:
                batch, pending = await self._batch()
                for message in batch:
                    value = self._take(message, stored=True)
                    if value is not None:
                        yield value
        finally:
            await self._close_inbox()

    async def follow(self) -> AsyncGenerator[Output | OutputEnd | Quiet, None]:
        """What is stored and what comes, until `OutputEnd`; `Quiet` now and then while nothing comes."""
        live = await self._connection.subscribe(
            self._subject, pending_msgs_limit=LIVE_MESSAGES, pending_bytes_limit=LIVE_BYTES
        )
        try:
            look = FIRST_LOOK
            quiet = 0.0
            while True:
                pending = 1
                while pending:
                    batch, pending = await self._batch()
                    for message in batch:
                        value = self._take(message, stored=True)
                        if value is not None:
                            look, quiet = FIRST_LOOK, 0.0
                            yield value
                            if isinstance(value, OutputEnd):
                                return
                while True:
                    try:
                        message = await live.next_msg(timeout=look)
                    except (nats.errors.TimeoutError, TimeoutError):
                        quiet += look
                        yield Quiet(quiet)
                        look = min(LAST_LOOK, look * 2)
                        break
                    value = self._take(message, stored=False)
                    if self._ahead:
                        break
                    if value is not None:
                        look, quiet = FIRST_LOOK, 0.0
                        yield value
                        if isinstance(value, OutputEnd):
                            return
        finally:
            await _unsubscribe(live)
            await self._close_inbox()

    def _take(self, message: Msg, *, stored: bool) -> Output | OutputEnd | None:
        """The new part of a message. `_ahead` is set when something before it is missing here."""
        self._ahead = False
        try:
            value = messages.decode_output(message.data)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None
        if isinstance(value, OutputEnd):
            self._ahead = not stored and self._misses(message)
            return None if self._ahead else value
        have = self.positions.get(value.stream)
        if have is None or value.offset + len(value.data) <= have:
            return None
        if value.offset > have and not stored:
            self._ahead = True
            return None
        fresh = value.data[have - value.offset :] if value.offset < have else value.data
        offset = max(have, value.offset)
        self.positions[value.stream] = offset + len(fresh)
        return Output(stream=value.stream, offset=offset, data=fresh, at_ms=value.at_ms)

    def _misses(self, message: Msg) -> bool:
        """Whether the end says that there was more than we have had. Without a word on it, the stored ones tell."""
        said = (message.headers or {}).get(subjects.OUTPUT_POSITION, "")
        try:
            total = [int(part) for part in said.split(",")]
        except ValueError:
            return True
        return any(self.positions.get(index + 1, 0) < size for index, size in enumerate(total))

    async def _batch(self) -> tuple[list[Msg], int]:
        """Stored messages from `_next` on, and how many more there are (ADR-31, batched direct get)."""
        if self._inbox is None:
            self._reply = self._connection.new_inbox()
            self._inbox = await self._connection.subscribe(self._reply, pending_bytes_limit=64 << 20)
        wish = {"seq": self._next, "next_by_subj": self._subject, "batch": BATCH, "max_bytes": BATCH_BYTES}
        batch: list[Msg] = []
        try:
            await self._connection.publish(
                f"$JS.API.DIRECT.GET.{subjects.OUTPUT_STREAM}", json.dumps(wish).encode(), reply=self._reply
            )
            while True:
                message = await self._inbox.next_msg(timeout=READ_TIMEOUT)
                headers = message.headers or {}
                status = headers.get("Status")
                if status is None:
                    batch.append(message)
                    self._next = int(headers["Nats-Sequence"]) + 1
                elif status == "204":
                    return batch, int(headers.get("Nats-Num-Pending", "0"))
                elif status == "404":
                    return batch, 0
                else:
                    raise Problem("unavailable", "The output can't be read now; try again.")
        except (nats.errors.Error, TimeoutError) as error:
            await self._close_inbox()
            if batch:
                return batch, 1
            raise Problem("unavailable", "The output can't be read now; try again.") from error

    async def _close_inbox(self) -> None:
        if self._inbox is not None:
            inbox, self._inbox = self._inbox, None
            await _unsubscribe(inbox)


async def _unsubscribe(subscription: Subscription) -> None:
    try:
        await asyncio.shield(subscription.unsubscribe())
    except nats.errors.Error:
        pass
