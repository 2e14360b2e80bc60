"""The frames of a streaming session."""

from __future__ import annotations

from typing import Any

import msgspec

from mags.protocol.messages.codec import Value


class Data(Value, tag="data"):
    stream: int
    """0 stdin (to the host), 1 stdout, 2 stderr (from it)."""
    data: bytes


class Credit(Value, tag="credit"):
    """The receiver has consumed this many bytes: as many more may be sent."""

    amount: int


class Eof(Value, tag="eof"):
    """No more stdin."""


class WindowSize(Value, tag="resize"):
    rows: int
    cols: int


class Signal(Value, tag="signal"):
    number: int


class Hangup(Value, tag="hangup"):
    """The client has gone: end the process."""


class Alive(Value, tag="alive"):
    """Sent by both sides every 15 s; a side that hears nothing for 60 s gives the session up."""


class SessionEnd(Value, tag="exit"):
    """The last frame from the host. `code`/`message` describe a problem of the platform, if there was one."""

    exit_code: int | None = None
    code: str | None = None
    message: str = ""
    bytes: int = 0
    details: dict[str, Any] = {}


Frame = Data | Credit | Eof | WindowSize | Signal | Hangup | Alive | SessionEnd

_frames: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def decode_frame(data: bytes) -> Frame:
    return _frames.decode(data)
