"""A raw byte relay: two protocols that are each other's peer.

    Caddy --unix--> Front <-> Back --TCP--> VM

    Front: wanting --join--> joined --rest--> resting --first byte--> wanting
               '--refuse--> (an answer in the VM's place, then closed)

Nothing is changed and nothing waits for a parser. When one side ends amid a request, what the other is still owed is
written and it is closed too: a client that has left does not keep its request alive in the VM, and a VM that has
answered and hung up frees the client. Between two requests a Front lives on without a Back: Caddy's next request, of
whatever method, is held there until there is another connection to a VM.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from mags.edge.urls.exchange import Exchange

EARLY_LIMIT = 64 << 10
"""Bytes that a Front takes before it is connected; more waits in the kernel."""
LINGER = 5.0
"""Seconds that a refused client has to read its answer before it is cut off."""


class Side(asyncio.Protocol):
    """What both have in common: the peer's pace is ours."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()


class Back(Side):
    """The connection to the VM."""

    def __init__(self, front: Front) -> None:
        super().__init__()
        self._front = front

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = self._front
        if not self._front.join(self):
            self.peer = None
            cast(asyncio.Transport, transport).abort()

    def data_received(self, data: bytes) -> None:
        front = self._front
        if front.peer is self:
            front.exchange.answered(data)
            front.transport.write(data)  # type: ignore[union-attr]  # set while we are its peer

    def connection_lost(self, error: Exception | None) -> None:
        front = self._front
        if front.peer is self and not front.rest() and front.transport is not None:
            front.transport.close()


class Owner(Protocol):
    """What a Front's life is told to."""

    def opened(self, front: Front) -> None:
        """Caddy has connected."""

    def wanting(self, front: Front) -> None:
        """A request has come: `join` it to the VM, or `refuse` it."""

    def rested(self, front: Front) -> None:
        """It leads nowhere now."""

    def left(self, front: Front) -> None:
        """It has ended."""


class Front(Side):
    """The connection from Caddy."""

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self._owner = owner
        self._early: list[bytes] | None = []
        """What has come before there was a Back. None: there is one, or it was refused."""
        self._early_size = 0
        self._resting = False
        self._refused = False
        self.exchange = Exchange()
        self.open = False
        self.joined_ms: float | None = None
        """When it was connected to the VM (Unix time in ms)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.open = True
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._early is None:
            if not self._refused:
                self.exchange.asked(data)
                self.peer.transport.write(data)  # type: ignore[union-attr]  # joined: both are set
            return
        self.exchange.asked(data)
        self._early.append(data)
        self._early_size += len(data)
        if self._early_size >= EARLY_LIMIT:
            self.transport.pause_reading()  # type: ignore[union-attr]  # set while data comes
        if self._resting:
            self._resting = False
            self._owner.wanting(self)

    def join(self, back: Side) -> bool:
        """Bytes flow from now on. False when the client has left meanwhile."""
        if not self.open or self._early is None or back.transport is None:
            return False
        early, self._early, self._early_size = self._early, None, 0
        self.peer = back
        assert self.transport is not None
        self.transport.resume_reading()  # before the writing: that may find the VM slow already, and pause it again
        for data in early:
            back.transport.write(data)
        return True

    def rest(self) -> bool:
        """Let go of the VM, if no request is under way; whether that is so now."""
        if not self.open or not self.exchange.idle or self._refused:
            return False
        back, self.peer = self.peer, None
        if back is None:
            return self._resting
        back.peer = None  # what it still has to write is no measure for the next one's pace
        self._early, self._resting, self.joined_ms = [], True, None
        assert self.transport is not None
        self.transport.resume_reading()
        if back.transport is not None:
            back.transport.close()
        self._owner.rested(self)
        return True

    def refuse(self, answer: bytes) -> None:
        """Answer in the VM's place and close; what the client still sends is read and dropped for a moment."""
        if not self.open or self._refused:
            return
        back, self.peer = self.peer, None
        if back is not None and back.transport is not None:
            back.transport.abort()
        self._early, self._refused = None, True
        assert self.transport is not None
        self.transport.resume_reading()
        self.transport.write(answer)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # Closing at once, with unread bytes of an upload, would reset the connection and lose the answer.
        asyncio.get_running_loop().call_later(LINGER, self.transport.abort)

    def cut(self, answer: bytes) -> None:
        """The VM that it leads to is lost to it. Between two requests it rests. A GET is left to Caddy, which sends it
        again; of another request that has no answer yet, `answer` is the answer."""
        if self.rest():
            return
        if self.exchange.begun or self.exchange.method in (b"", b"GET"):
            self.abort()
        else:
            self.refuse(answer)

    def abort(self) -> None:
        """End both connections at once, unless this one has its answer on the way."""
        if self._refused:
            return
        for side in (self, self.peer):
            if side is not None and side.transport is not None:
                side.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        back, self.peer = self.peer, None
        if back is not None and back.transport is not None:
            back.transport.close()
        self._owner.left(self)
