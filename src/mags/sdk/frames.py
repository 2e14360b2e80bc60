"""The frames of a job's output (docs/exec-websocket.md, "Frames"), taken apart without I/O.

[1 byte stream][4 bytes length, big endian][data]     1 stdout, 2 stderr, 3 the platform's words, 0 the end, 4 a gap
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import NamedTuple

from mags.sdk.errors import TransferFailed

LIMIT = 16 << 20
"""Bytes of one frame at most; more is no frame."""
GAP = 4
HEAD = struct.Struct(">BI")


class Chunk(NamedTuple):
    """Bytes of one stream, as they were written."""

    stream: int
    data: bytes


class End(NamedTuple):
    """Nothing follows. `status` is the job's."""

    exit_code: int | None
    error: str | None
    status: str


class Decoder:
    """Bytes in, frames out. `ended` once the last frame was seen; `offsets` counts the bytes of each stream, also those
    that the server no longer has (a chunk of the platform's words says so in their place)."""

    def __init__(self) -> None:
        self.ended = False
        self.offsets = {1: 0, 2: 0, 3: 0}
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Chunk | End]:
        """The frames that are complete with these bytes. TransferFailed when they are none."""
        self._buffer += data
        position = 0
        try:
            while not self.ended and len(self._buffer) - position >= HEAD.size:
                stream, length = HEAD.unpack_from(self._buffer, position)
                if stream > GAP or length > LIMIT:
                    raise TransferFailed("The server sent something else than a job's output. Is it a Mags server?")
                if len(self._buffer) - position - HEAD.size < length:
                    return
                start = position + HEAD.size
                position = start + length
                payload = bytes(memoryview(self._buffer)[start:position])
                if stream == 0:
                    self.ended = True
                    yield _end(payload)
                elif stream == GAP:
                    of, size = _gap(payload)
                    self.offsets[of] += size
                    yield Chunk(3, f"({size} bytes of output that were here are no longer kept.)\n".encode())
                elif payload:
                    self.offsets[stream] += length
                    yield Chunk(stream, payload)
        finally:
            del self._buffer[:position]

    def reconnected(self) -> None:
        """What was half received before the connection broke comes again."""
        self._buffer.clear()


def _gap(payload: bytes) -> tuple[int, int]:
    try:
        found = json.loads(payload)
        stream, size = int(found["stream"]), int(found["bytes"])
        if stream in (1, 2, 3) and size > 0:
            return stream, size
    except (ValueError, KeyError, TypeError):
        pass
    raise TransferFailed("The server said something unreadable about a job's output. Is it a Mags server?")


def _end(payload: bytes) -> End:
    try:
        found = json.loads(payload)
        exit_code, error, status = found.get("exit_code"), found.get("error"), found["status"]
    except (ValueError, KeyError, AttributeError) as failure:
        raise TransferFailed("The server ended a job's output with something unreadable.") from failure
    return End(exit_code if isinstance(exit_code, int) else None, str(error) if error else None, str(status))
