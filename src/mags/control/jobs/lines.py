"""From chunks of bytes to lines of text. Pure.

A line may come in any number of chunks, chunks of several streams mixed. Each entry has the time of the chunk that its
first byte came in, and the position behind it in every stream, from which a reader can go on later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
NAMES = {1: "stdout", 2: "stderr", 3: "system"}
SYSTEM = 3
MAX_LINE = 64 << 10
"""Bytes after which a line without an end is given out in parts."""


@dataclass(frozen=True, slots=True)
class Line:
    stream: int
    text: str
    at_ms: int
    end: int
    """Offset behind the line (and its newline) in its stream."""


@dataclass(slots=True)
class _Partial:
    data: bytearray = field(default_factory=bytearray)
    at_ms: int = 0
    start: int = 0


class Lines:
    """Feed chunks in order of their offsets; `rest` gives the unfinished lines at the end."""

    def __init__(self, positions: dict[int, int] | None = None) -> None:
        self.positions = {1: 0, 2: 0, 3: 0, **(positions or {})}
        """Behind the last whole line that was given out, by stream."""
        self.incomplete = False
        """Whether bytes were missing between those that came."""
        self._partial: dict[int, _Partial] = {}

    def feed(self, stream: int, offset: int, data: bytes, at_ms: int) -> Iterator[Line]:
        """The lines that are complete with these bytes; where bytes are missing before them, a line says so."""
        partial = self._partial.get(stream)
        expected = partial.start + len(partial.data) if partial is not None and partial.data else self.positions[stream]
        if offset > expected:
            self.incomplete = True
            if partial is not None and partial.data:
                yield self._give(stream, partial, len(partial.data), len(partial.data))
            self.positions[stream] = offset
            yield Line(SYSTEM, not_kept(stream, offset - expected), at_ms, self.positions[SYSTEM])
        if partial is None or not partial.data:
            partial = self._partial[stream] = _Partial(bytearray(), at_ms, offset)
        partial.data += data
        while True:
            cut = partial.data.find(b"\n", 0, MAX_LINE + 1)
            if cut >= 0:
                yield self._give(stream, partial, cut, cut + 1)
            elif len(partial.data) > MAX_LINE:
                size = _boundary(partial.data, MAX_LINE)
                yield self._give(stream, partial, size, size)
            else:
                return
            partial.at_ms = at_ms

    def rest(self) -> Iterator[Line]:
        for stream, partial in sorted(self._partial.items()):
            if partial.data:
                yield self._give(stream, partial, len(partial.data), len(partial.data))

    def _give(self, stream: int, partial: _Partial, size: int, consumed: int) -> Line:
        text = partial.data[:size].decode(errors="replace").removesuffix("\r")
        del partial.data[:consumed]
        partial.start += consumed
        self.positions[stream] = partial.start
        return Line(stream, text, partial.at_ms, partial.start)


def not_kept(stream: int, size: int) -> str:
    """What is said in the place of bytes that are gone, as only so much output is kept, for so long."""
    return f"({size} bytes of {NAMES[stream]} that were here are no longer kept.)"


class Newest(Generic[T]):
    """The newest of many things: at most `count` of them, and at most `size` bytes together."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size, self._held = count, size, 0
        self._things: deque[tuple[T, int]] = deque()
        self.too_many = self.too_large = False
        """Whether older ones were left out, and what for."""

    def add(self, thing: T, size: int) -> None:
        self._things.append((thing, size))
        self._held += size
        while self._things and (len(self._things) > self._count or self._held > self._size):
            self.too_many |= len(self._things) > self._count
            self.too_large |= self._held > self._size
            self._held -= self._things.popleft()[1]

    def __iter__(self) -> Iterator[T]:
        return (thing for thing, _ in self._things)


def _boundary(data: bytearray, size: int) -> int:
    """At most `size`, but not inside a UTF-8 character (whose later bytes are 0b10xxxxxx)."""
    for back in range(4):
        if data[size - back] & 0xC0 != 0x80:
            return size - back
    return size


def encode_positions(positions: dict[int, int]) -> str:
    """`1:12,2:0,3:0`: the id of a server-sent event."""
    return ",".join(f"{stream}:{positions[stream]}" for stream in sorted(positions))


def decode_positions(text: str) -> dict[int, int] | None:
    """Inverse of `encode_positions`; None when it is none."""
    positions = {1: 0, 2: 0, 3: 0}
    for part in text.split(","):
        stream, colon, offset = part.partition(":")
        if (
            not colon
            or stream not in ("1", "2", "3")
            or not (offset.isascii() and offset.isdigit())
            or len(offset) > 18
        ):
            return None
        positions[int(stream)] = int(offset)
    return positions
