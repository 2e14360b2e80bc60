"""The frame of the guest channel, without I/O.

    0        2       3       4          8           12        16
    +--------+-------+-------+----------+-----------+---------+-----------+
    | "MG"   | type  | flags | id       | length    | crc32   | payload.. |
    +--------+-------+-------+----------+-----------+---------+-----------+

All integers are little-endian. The checksum covers bytes 0..11 and the payload, which is at most 64 KiB. A
message longer than that is cut into frames of the same type and id, all but the last with flag ``MORE``.

After a reconnect either side may find itself in the middle of a frame that the other side never finished. The
host therefore begins with filler bytes and a RESET, and skips whatever arrives until the HELLO that repeats the
RESET's nonce: the decoder's states are

    hunting --HELLO with our nonce--> synced --anything that is not a frame--> ProtocolError

Everything that comes from a guest is hostile, so every size here has a bound. See docs/protocol.md.
"""

from __future__ import annotations

import struct
import sys
import zlib
from enum import IntEnum
from typing import NamedTuple

VERSION = 1
MAGIC = b"MG"
MAX_PAYLOAD = 65536
MAX_MESSAGE = 2 * 1024 * 1024
MORE = 0x01
END_OF_INPUT = 0x02
# Garbage tolerated before the HELLO: what an agent can have under way for a host that died.
MAX_SKIPPED = 8 * 1024 * 1024
FILLER = b"\xff" * 64
# Longer than any frame: ends the frame that a dead host left unfinished.
LONG_FILLER = b"\xff" * (MAX_PAYLOAD + 16)

HEADER = struct.Struct("<2sBBIII")
_COVERED = struct.Struct("<2sBBII")
_NONCE = struct.Struct("<Q")


class ProtocolError(Exception):
    """The guest sent something that the protocol does not allow; the channel cannot be trusted any more."""


class FrameType(IntEnum):
    RESET = 0x01
    CONFIGURE = 0x02
    EXEC = 0x03
    STDIN = 0x04
    ACK = 0x05
    RESIZE = 0x06
    SIGNAL = 0x07
    RELEASE = 0x08
    ATTACH = 0x09
    PING = 0x0A
    STATS = 0x0B
    FREEZE = 0x0C
    THAW = 0x0D
    FLUSH = 0x0E
    POWEROFF = 0x0F
    HELLO = 0x81
    CONFIGURED = 0x82
    OUTPUT = 0x83
    EXIT = 0x84
    CREDIT = 0x85
    REPLY = 0x86
    ERROR = 0x87
    GOODBYE = 0x88


class Frame(NamedTuple):
    type: int
    flags: int
    id: int
    payload: bytes


def encode_frame(kind: int, id: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """One frame. The payload must fit; `encode_message` cuts longer ones."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"payload of {len(payload)} bytes is longer than {MAX_PAYLOAD}")
    head = _COVERED.pack(MAGIC, kind, flags, id, len(payload))
    return b"".join((head, zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little"), payload))


def encode_message(kind: int, id: int, payload: bytes) -> bytes:
    """A message of up to MAX_MESSAGE bytes as one or more frames."""
    if len(payload) > MAX_MESSAGE:
        raise ValueError(f"message of {len(payload)} bytes is longer than {MAX_MESSAGE}")
    if len(payload) <= MAX_PAYLOAD:
        return encode_frame(kind, id, payload)
    last = (len(payload) - 1) // MAX_PAYLOAD
    return b"".join(
        encode_frame(kind, id, payload[n * MAX_PAYLOAD : (n + 1) * MAX_PAYLOAD], MORE if n < last else 0)
        for n in range(last + 1)
    )


def encode_reset(nonce: int, *, thorough: bool = False) -> bytes:
    """Begin a session. `thorough` ends any frame that an earlier host may have left half written."""
    reset = encode_frame(FrameType.RESET, 0, VERSION.to_bytes(2, "little") + _NONCE.pack(nonce))
    return (LONG_FILLER if thorough else FILLER) + reset


class Decoder:
    """Turns the bytes a guest sends into frames; raises ProtocolError on the first that is none."""

    def __init__(self, nonce: int) -> None:
        self._buffer = bytearray()
        self._skipped = 0
        self._synced = False
        self._nonce = _NONCE.pack(nonce)

    @property
    def synced(self) -> bool:
        """Whether the HELLO of this session was seen."""
        return self._synced

    def expect(self, nonce: int) -> None:
        """Wait for another HELLO, after a second RESET."""
        self._nonce = _NONCE.pack(nonce)
        self._synced = False

    def feed(self, data: bytes, limit: int = sys.maxsize) -> list[Frame]:
        """The frames that are whole now, at most `limit`: with so many there may be more, for the next call."""
        frames: list[Frame] = []
        buffer = self._buffer
        buffer += data
        at = 0
        if not self._synced:
            at = self._hunt(buffer)
        if self._synced:
            at = self._cut(buffer, at, frames, limit)
        if at:
            del buffer[:at]
        return frames

    @staticmethod
    def _cut(buffer: bytearray, at: int, frames: list[Frame], limit: int) -> int:
        end = len(buffer)
        with memoryview(buffer) as view:
            while end - at >= 16 and len(frames) < limit:
                magic, kind, flags, id, length, checksum = HEADER.unpack_from(view, at)
                if magic != MAGIC:
                    raise ProtocolError("bad magic: the stream is out of step")
                if length > MAX_PAYLOAD:
                    raise ProtocolError(f"frame of {length} bytes is longer than {MAX_PAYLOAD}")
                if end - at - 16 < length:
                    break
                payload = bytes(view[at + 16 : at + 16 + length])
                if zlib.crc32(payload, zlib.crc32(view[at : at + 12])) != checksum:
                    raise ProtocolError("bad checksum")
                frames.append(Frame(kind, flags, id, payload))
                at += 16 + length
        return at

    def _hunt(self, buffer: bytearray) -> int:
        """Find the HELLO of this session; answers where it begins, or up to where nothing can be it."""
        wanted = MAGIC + bytes((FrameType.HELLO,))
        at = 0
        while True:
            found = buffer.find(wanted, at)
            if found < 0:
                at = max(len(buffer) - 2, 0)
                break
            at = found
            if len(buffer) - at < 24:
                break
            length = int.from_bytes(buffer[at + 8 : at + 12], "little")
            if 8 <= length <= MAX_PAYLOAD and buffer[at + 16 : at + 24] == self._nonce:
                # The nonce is 64 bits of our randomness, so nothing old can hold it: this is the HELLO.
                self._synced = True
                return at
            at += 1
        self._skipped += at
        if self._skipped > MAX_SKIPPED:
            raise ProtocolError(f"no HELLO within {MAX_SKIPPED} bytes")
        return at
