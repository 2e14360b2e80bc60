"""Requests to a guest that wait for its answers."""

from __future__ import annotations

import asyncio

from mags.host.guest.errors import ChannelClosed
from mags.protocol.guest import Frame, ProtocolError


class Requests:
    """Of one channel. Each has a number; an answer bears it."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[Frame]] = {}
        self._last = 0

    def begin(self) -> tuple[int, asyncio.Future[Frame]]:
        """A number, and what will be the answer. To be forgotten by the caller, whatever happens."""
        self._last += 1
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = answer
        return self._last, answer

    def forget(self, number: int) -> None:
        self._waiting.pop(number, None)

    def take(self, frame: Frame) -> None:
        """An answer has come. ProtocolError if there never was such a request."""
        answer = self._waiting.pop(frame.id, None)
        if answer is None:
            if not 0 < frame.id <= self._last:
                raise ProtocolError("an answer to nothing")
        elif not answer.done():
            answer.set_result(frame)

    def fail(self, reason: str) -> None:
        """No answers will come."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ChannelClosed(reason))
                answer.exception()  # perhaps nobody waits any more: that is no error
        self._waiting.clear()
