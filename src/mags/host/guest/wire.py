"""The bytes of a guest's channel: the transport and its flow control."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from mags.host.guest.channel import Channel


class Wire(asyncio.Protocol):
    """Bytes in, bytes out, flow control."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.channel: Channel | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface of asyncio.Transport without being one.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.channel is not None:
            self.channel._receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        if self.channel is not None:
            self.channel._end("the virtual machine has ended")

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()
