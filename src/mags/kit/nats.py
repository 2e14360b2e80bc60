"""Connections to NATS that outlive a restart of the server, and the streams that keep messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

log = logging.getLogger("mags.nats")

PENDING_LIMIT = 64 << 20
"""Bytes that the client keeps for later while the server is away."""
BEHIND = 64 << 10
"""Bytes that the server has not taken yet, from which on we wait for it."""
RECONNECT_S: Any = 0.25
"""Pause between two tries. nats-py takes fractions of a second, whatever its annotation says."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A JetStream stream: how long (s) and how much (bytes in all, messages a subject) it keeps."""

    name: str
    subjects: Sequence[str]
    max_age_s: float
    max_bytes: int
    duplicate_window_s: float = 120.0


class _Client(Client):
    """Writes what is published at once. nats-py hands it to a task of its own, which writes some turns of the event
    loop later; that task still has it when the server does not keep up."""

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        transport = self._transport
        if force_flush or not self.is_connected or not isinstance(transport, TcpTransport) or _is_behind(transport):
            return await super()._flush_pending(force_flush)
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        transport.write(b"".join(pending))  # type: ignore[no-untyped-call]
        return None


def _is_behind(transport: TcpTransport) -> bool:
    writer = transport._io_writer
    return writer is None or writer.transport.get_write_buffer_size() > BEHIND


async def connect(url: str, *, name: str, timeout: float = 30.0) -> Client:
    """A client that connects again for ever. TimeoutError when the first connection does not come in time."""

    async def on_error(error: Exception) -> None:
        log.debug("nats: %s", error)

    client: Client | None = None

    async def on_lost() -> None:
        if client is None or not client.is_closed:
            log.warning("the connection to NATS is lost; trying again")

    async def on_back() -> None:
        log.info("connected to NATS again")

    async with asyncio.timeout(timeout):
        while True:
            try:
                client = _Client()
                await client.connect(
                    url,
                    name=name,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_S,
                    connect_timeout=5,
                    ping_interval=20,
                    max_outstanding_pings=3,
                    pending_size=PENDING_LIMIT,
                    error_cb=on_error,
                    disconnected_cb=on_lost,
                    reconnected_cb=on_back,
                )
                return client
            except (OSError, nats.errors.NoServersError, nats.errors.TimeoutError):
                await asyncio.sleep(0.1)


async def settle(client: Client, *, timeout: float = 10.0) -> None:
    """Until the server has seen everything that was sent or subscribed to so far. TimeoutError when it does not answer.

    The client's own `flush` writes its PING ahead of what still waits in its buffer; by the second one that is out.
    """
    for _ in range(2):
        await client.flush(timeout=max(1, round(timeout)))


async def ensure_stream(jetstream: JetStreamContext, stream: Stream) -> None:
    """Make the stream, or bring an older one up to date. Repeatable, also by several programs at once."""
    config = StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_age=stream.max_age_s,
        max_bytes=stream.max_bytes,
        duplicate_window=stream.duplicate_window_s,
        allow_direct=True,
    )
    try:
        await jetstream.stream_info(stream.name)
    except NotFoundError:
        try:
            await jetstream.add_stream(config)
            return
        except BadRequestError:  # somebody else was first
            pass
    await jetstream.update_stream(config)
