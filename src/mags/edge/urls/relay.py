"""A raw byte relay: two protocols that are each other's peer.

    Caddy --unix--> Front <-> Back --TCP--> VM

Nothing is parsed. When one side ends, what the other is still owed is written and it is closed too: a client that has
left does not keep its request alive in the VM, and a VM that has answered and hung up frees the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

EARLY_LIMIT = 64 << 10
"""Bytes that a Front takes before it is connected; more waits in the kernel."""
LINGER = 5.0
"""Seconds that a refused client has to read its answer before it is cut off."""


class Side(asyncio.Protocol):
    """What both have in common: bytes go to the peer, and the peer's pace is ours."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.peer.transport.write(data)  # type: ignore[union-attr]  # the hot path: both are set while we read

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        peer = self.peer
        if peer is not None and peer.transport is not None:
            peer.transport.close()


class Back(Side):
    """The connection to the VM."""

    def __init__(self, front: Front) -> None:
        super().__init__()
        self.peer = front

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        front = cast(Front, self.peer)
        if not front.join(self):
            cast(asyncio.Transport, transport).abort()


class Front(Side):
    """The connection from Caddy. It holds what comes early until `join` or `refuse` is called."""

    def __init__(self, on_open: Callable[[Front], None], on_close: Callable[[Front], None]) -> None:
        super().__init__()
        self._on_open, self._on_close = on_open, on_close
        self._early: list[bytes] | None = []
        self._early_size = 0
        self._refused = False
        self.open = False
        self.joined_ms: float | None = None
        """When it was connected to the VM (Unix time in ms)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.open = True
        self._on_open(self)

    def data_received(self, data: bytes) -> None:
        if self._early is None:
            if not self._refused:
                self.peer.transport.write(data)  # type: ignore[union-attr]
            return
        self._early.append(data)
        self._early_size += len(data)
        if self._early_size >= EARLY_LIMIT:
            self.transport.pause_reading()  # type: ignore[union-attr]

    def join(self, back: Side) -> bool:
        """Bytes flow from now on. False when the client has left meanwhile."""
        if not self.open or self._early is None or back.transport is None:
            return False
        early, self._early = self._early, None
        self.peer = back
        for data in early:
            back.transport.write(data)
        assert self.transport is not None
        self.transport.resume_reading()
        return True

    def refuse(self, answer: bytes) -> None:
        """Answer in the VM's place and close; what the client still sends is read and dropped for a moment."""
        if not self.open or self._early is None:
            return
        self._early, self._refused = None, True
        assert self.transport is not None
        self.transport.resume_reading()
        self.transport.write(answer)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # Closing at once, with unread bytes of an upload, would reset the connection and lose the answer.
        asyncio.get_running_loop().call_later(LINGER, self.transport.abort)

    def abort(self) -> None:
        """End both connections at once, unless this one has its answer on the way."""
        if self._refused:
            return
        for side in (self, self.peer):
            if side is not None and side.transport is not None:
                side.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        super().connection_lost(error)
        self._on_close(self)
