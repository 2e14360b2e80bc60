"""Tagged fields: how the longer messages of the guest channel are written.

A message is a sequence of fields, each `tag (1 byte), length (4 bytes), value`. A tag may repeat where the message
says so. An unknown tag is an error: both sides come from one release, and HELLO carries the protocol's version.
"""

from __future__ import annotations

from collections.abc import Iterator

from mags.protocol.guest.frames import ProtocolError


class FieldWriter:
    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def add(self, tag: int, value: bytes = b"") -> None:
        self._parts.append(tag.to_bytes(1, "little") + len(value).to_bytes(4, "little"))
        self._parts.append(value)

    def add_text(self, tag: int, value: str) -> None:
        """Text that ends in a C string: no NUL bytes."""
        raw = value.encode("utf-8", "surrogateescape")
        if b"\0" in raw:
            raise ValueError("text for the guest must not hold NUL bytes")
        self.add(tag, raw)

    def add_int(self, tag: int, value: int, size: int = 8) -> None:
        self.add(tag, value.to_bytes(size, "little"))

    def getvalue(self) -> bytes:
        return b"".join(self._parts)


def read_fields(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message.

    Raises ProtocolError where one reaches beyond the end.
    """
    at, end = 0, len(payload)
    while at < end:
        if end - at < 5:
            raise ProtocolError("a field's head is cut off")
        length = int.from_bytes(payload[at + 1 : at + 5], "little")
        if length > end - at - 5:
            raise ProtocolError("a field is longer than its message")
        yield payload[at], payload[at + 5 : at + 5 + length]
        at += 5 + length


def integer(value: bytes, size: int) -> int:
    """An unsigned integer field of exactly `size` bytes."""
    if len(value) != size:
        raise ProtocolError(f"an integer field has {len(value)} bytes instead of {size}")
    return int.from_bytes(value, "little")


def text(value: bytes, limit: int = 4096) -> str:
    """Text from the guest: bounded; bytes that are no UTF-8 survive as surrogates."""
    if len(value) > limit:
        raise ProtocolError(f"a text field has {len(value)} bytes, more than {limit}")
    return value.decode("utf-8", "surrogateescape")


def sentence(value: bytes, limit: int) -> str:
    """What the guest says to people: bounded; bytes that are no UTF-8 become U+FFFD, so that it can be passed on."""
    if len(value) > limit:
        raise ProtocolError(f"a sentence has {len(value)} bytes, more than {limit}")
    return value.decode("utf-8", "replace")
