"""Whether a request is under way on a connection that carries one HTTP request after the other. It only looks on: the
bytes pass as they are, and it is Caddy that judges them.

    idle --first byte of a request--> under way --both request and answer have ended--> idle

What it can't follow (an upgraded connection, an answer that ends with the connection, garbage) stays under way.

To follow every exchange would cost a third of the relay's speed. Of a GET in one piece and its short answer the pieces
are kept instead, and read when somebody asks, or dropped when the next request comes: Caddy sends none before it has
had the whole answer to the one before.
"""

from __future__ import annotations

import httptools

INFORMATIONAL, SWITCHING = range(100, 200), 101
KEPT = 4
"""Pieces of an answer; a longer one is followed."""


class Exchange:
    """One connection's. `asked` is given what the client sends, `answered` what comes back."""

    __slots__ = ("_follower", "_get", "_pieces")

    def __init__(self) -> None:
        self._get: bytes | None = None
        """The request under way, as long as it is not followed; `_pieces` has its answer so far."""
        self._pieces: list[bytes] = []
        self._follower: _Follower | None = None

    @property
    def idle(self) -> bool:
        if self._get is not None:
            self._follow()
        return self._follower is None or self._follower.idle

    @property
    def begun(self) -> bool:
        """Whether some of the answer to the request under way has come."""
        return bool(self._pieces) or (self._follower is not None and self._follower.begun)

    @property
    def method(self) -> bytes:
        """Of the request under way, once its headers are there."""
        if self._get is not None:
            return b"GET"
        return self._follower.method if self._follower is not None else b""

    def asked(self, data: bytes) -> None:
        if self._get is not None:
            # One piece that is not the beginning of an upgrade or of more answers than one.
            if len(self._pieces) == 1 and b"2" <= self._pieces[0][9:10] <= b"5":
                self._pieces.clear()
                self._get = None
            else:
                self._follow()
        follower = self._follower
        if follower is None or follower.idle:
            if data[:4] == b"GET " and data[-4:] == b"\r\n\r\n":
                self._get, self._follower = data, None
                return
            if follower is None:
                follower = self._follower = _Follower()
        follower.asked(data)

    def answered(self, data: bytes) -> None:
        if self._get is not None:
            self._pieces.append(data)
            if len(self._pieces) > KEPT:
                self._follow()
            return
        if self._follower is None:
            self._follower = _Follower()
        self._follower.answered(data)

    def _follow(self) -> None:
        """From the beginning of the request under way."""
        assert self._get is not None
        follower = self._follower = _Follower()
        follower.asked(self._get)
        for piece in self._pieces:
            follower.answered(piece)
        self._get = None
        self._pieces.clear()


class _Follower:
    """The same for every piece, by llhttp."""

    __slots__ = ("_answers", "_asks", "_followed", "_head_over", "_over", "begun", "idle", "method")

    def __init__(self) -> None:
        self.idle = True
        self.begun = False
        """Some of the answer has come."""
        self.method = b""
        """Of the request under way, once its headers are there."""
        self._followed = True
        self._over = [True, True]
        """The request, its answer."""
        self._head_over = False
        self._asks = httptools.HttpRequestParser(_Asking(self))
        self._answers = httptools.HttpResponseParser(_Answering(self))

    def asked(self, data: bytes) -> None:
        if self.idle:
            self.idle = self.begun = False
            self.method = b""
            self._over = [False, False]
        if self._followed:
            try:
                self._asks.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._followed = False

    def answered(self, data: bytes) -> None:
        self.begun = True
        if not self._followed:
            return
        try:
            self._answers.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._followed = False
        if self._head_over:  # no body follows, whatever its headers say (RFC 9110, 9.3.2)
            self._head_over = False
            self._answers = httptools.HttpResponseParser(_Answering(self))
            self.end(1)

    def end(self, part: int) -> None:
        """0: the request, 1: its answer."""
        self._over[part] = True
        self.idle = self._followed and all(self._over)

    def headers_of_request(self) -> None:
        self.method = self._asks.get_method()

    def headers_of_answer(self) -> None:
        self._head_over = self.method == b"HEAD" and self._answers.get_status_code() not in INFORMATIONAL

    def end_of_answer(self) -> None:
        status = self._answers.get_status_code()
        if status == SWITCHING:
            self._followed = False
        elif status not in INFORMATIONAL and not self._head_over:
            self.end(1)


class _Asking:
    """What the parser of requests calls."""

    __slots__ = ("on_headers_complete", "on_message_complete")

    def __init__(self, exchange: _Follower) -> None:
        self.on_headers_complete = exchange.headers_of_request
        self.on_message_complete = lambda: exchange.end(0)


class _Answering:
    """What the parser of answers calls."""

    __slots__ = ("on_headers_complete", "on_message_complete")

    def __init__(self, exchange: _Follower) -> None:
        self.on_headers_complete = exchange.headers_of_answer
        self.on_message_complete = exchange.end_of_answer
