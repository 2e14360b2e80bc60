"""One request to a host, answered by a value or a Problem.

A request is either known not to have reached the host (`unavailable`: safe to try again, also elsewhere), answered, or
its outcome is not known (`outcome_unknown`: it may have happened; only the same repeatable request may follow).
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

import nats.errors
from nats.aio.client import Client

from mags.protocol import messages, subjects
from mags.protocol.errors import Problem
from mags.protocol.messages import Value

T = TypeVar("T", bound=Value)

CONNECT_PATIENCE = 5.0
"""Seconds that a request waits for a lost connection to NATS before it gives up unsent."""


class HostClient:
    """Requests over one NATS connection. Any number may share a connection."""

    def __init__(self, connection: Client) -> None:
        self.connection = connection
        self._waiting: dict[str, set[asyncio.Timeout]] = {}

    async def request(self, host_id: str, verb: str, value: Value, kind: type[T], *, timeout: float = 30.0) -> T:
        """Ask `host_id`; `timeout` in seconds from the sending. Raises the host's own Problem, or the two above."""
        who = f"Host {host_id}"
        waiting = self._waiting.setdefault(host_id, set())
        try:
            async with asyncio.timeout(None) as patience:
                waiting.add(patience)
                try:
                    return await self.ask(subjects.rpc(host_id, verb), value, kind, timeout=timeout, who=who)
                finally:
                    waiting.discard(patience)
        except TimeoutError as error:
            raise Problem("outcome_unknown", f"{who} was lost before it answered.") from error

    def give_up(self, host_id: str) -> None:
        """The host is lost: nobody waits for its answers any longer."""
        for patience in self._waiting.get(host_id, ()):
            patience.reschedule(asyncio.get_running_loop().time())

    async def ask(self, subject: str, value: Value, kind: type[T], *, timeout: float, who: str) -> T:
        """The same for any subject whose answers are `messages.Answer`. `who` begins the sentence of a problem."""
        await self._connected()
        try:
            message = await self.connection.request(subject, messages.encode(value), timeout=timeout)
        except nats.errors.NoRespondersError as error:
            raise Problem("unavailable", f"{who} does not listen now; try again in a moment.") from error
        except nats.errors.MaxPayloadError as error:
            raise Problem("too_large", "The request is too large for one message.") from error
        except (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError) as error:
            raise Problem("unavailable", "The program is stopping; try again in a moment.") from error
        except (nats.errors.TimeoutError, TimeoutError) as error:
            raise Problem("outcome_unknown", f"{who} did not answer within {timeout:g} s.") from error
        return messages.open_answer(message.data, kind)

    async def _connected(self) -> None:
        if self.connection.is_connected:
            return
        try:
            async with asyncio.timeout(CONNECT_PATIENCE):
                while not self.connection.is_connected:
                    if self.connection.is_closed:
                        raise Problem("unavailable", "The program is stopping; try again in a moment.")
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise Problem("unavailable", "The message server is away; try again in a moment.") from error
