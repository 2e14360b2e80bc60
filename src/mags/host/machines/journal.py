"""JetStream as the host needs it: append and be told, or be told that it is away; never lose, never twice.

NATS may be down for a while, or come back empty; whoever writes tries again until it is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from mags.kit.nats import Stream, ensure_stream
from mags.kit.tasks import heed_cancellation
from mags.protocol import subjects

log = logging.getLogger(__name__)

ANSWER_S = 5.0
"""An append not acknowledged after this long is tried again."""
FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 2.0
WRONG_LAST_SEQUENCE = (10071, 10164)
"""Errors of JetStream (its errors.json): the subject has moved on since."""

STREAMS = (
    Stream(subjects.EVENTS_STREAM, (subjects.EVENTS,), subjects.EVENTS_MAX_AGE_S, subjects.EVENTS_MAX_BYTES),
    Stream(subjects.OUTPUT_STREAM, (subjects.OUTPUTS,), subjects.OUTPUT_MAX_AGE_S, subjects.OUTPUT_MAX_BYTES),
)


class Away(Exception):
    """No acknowledgement: it may be stored or not."""


class Moved(Exception):
    """Not stored: the subject's last message is another than expected."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A message that JetStream holds."""

    sequence: int
    headers: Mapping[str, str]
    data: bytes


class Journal:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._jetstream = client.jetstream(timeout=ANSWER_S)

    async def prepare(self) -> None:
        """Make the streams, waiting for NATS as long as it takes."""
        while not await self._ensure():
            await asyncio.sleep(LAST_PAUSE_S)

    async def append(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        """The sequence under which it is stored. Raises Away or Moved."""
        try:
            answer = await self._jetstream.publish(subject, payload, timeout=ANSWER_S, headers=headers)
        except APIError as error:
            if error.err_code in WRONG_LAST_SEQUENCE:
                raise Moved(str(error)) from error
            raise Away(str(error)) from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise Away(f"{type(error).__name__}: {error}") from error
        heed_cancellation()
        return answer.seq

    async def last(self, stream: str, subject: str) -> Kept | None:
        """The subject's last message. Raises Away."""
        try:
            found = await self._jetstream.get_last_msg(stream, subject)
        except NotFoundError:
            return None
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise Away(f"{type(error).__name__}: {error}") from error
        heed_cancellation()
        return Kept(found.seq or 0, found.headers or {}, found.data or b"")

    async def wait(self, attempt: int, words: str) -> None:
        """Rest before the next try (`attempt` counts from 0), and put right what can be."""
        if attempt == 3:
            log.warning("JetStream is away: %s waits", words)
        await asyncio.sleep(min(FIRST_PAUSE_S * 2 ** min(attempt, 10), LAST_PAUSE_S))
        while not self._client.is_connected:
            await asyncio.sleep(FIRST_PAUSE_S)
        if attempt:
            await self._ensure()

    async def _ensure(self) -> bool:
        try:
            for stream in STREAMS:
                await ensure_stream(self._jetstream, stream)
        except (nats.errors.Error, NoStreamResponseError, OSError, TimeoutError) as error:
            log.warning("the streams can't be made yet: %s", error)
            return False
        return True
