"""Server-sent events, taken apart without I/O (WHATWG HTML, "Interpreting an event stream")."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from mags.sdk.errors import TransferFailed

LIMIT = 4 << 20
"""Bytes of one line at most."""


class ServerEvent(NamedTuple):
    name: str
    data: str


class EventDecoder:
    """Bytes in, events out. `last_id` goes into Last-Event-ID when the stream has to be opened again."""

    def __init__(self) -> None:
        self.last_id = ""
        self.reconnected()

    def reconnected(self) -> None:
        """What was half received before the connection broke comes again."""
        self._rest = b""
        self._name, self._data, self._id = "", list[str](), self.last_id

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LIMIT:
            raise TransferFailed("The server sent a line without an end. Is it a Mags server?")
        for line in lines:
            event = self._line(line.removesuffix(b"\r").decode(errors="replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> ServerEvent | None:
        self.last_id = self._id
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return ServerEvent(name, "\n".join(data)) if data else None


def record(text: str) -> dict[str, Any]:
    """The JSON object that an event carries."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise TransferFailed("The server sent an unreadable line of output. Is it a Mags server?")
    return found
