"""XDR (RFC 4506), as much as NFS needs. Pure; whatever cannot be is `Garbage`, never another exception."""

from __future__ import annotations

import struct

_U32, _U64 = struct.Struct(">I"), struct.Struct(">Q")


class Garbage(Exception):
    """The bytes are not what the protocol says."""


class Reader:
    """Reads values from the front of `data`."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data, self._at = memoryview(data), 0

    def u32(self) -> int:
        return int(_U32.unpack(self._take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack(self._take(8))[0])

    def boolean(self) -> bool:
        value = self.u32()
        if value > 1:
            raise Garbage("a boolean that is neither")
        return value == 1

    def fixed(self, length: int) -> bytes:
        value = bytes(self._take(length))
        self._take(-length % 4)
        return value

    def opaque(self, limit: int) -> bytes:
        """Bytes of a variable length, at most `limit`."""
        length = self.u32()
        if length > limit:
            raise Garbage(f"{length} bytes where at most {limit} may be")
        return self.fixed(length)

    def rest(self) -> memoryview:
        return self._data[self._at :]

    def end(self) -> None:
        """Garbage if something is left."""
        if self._at != len(self._data):
            raise Garbage("more bytes than arguments")

    def _take(self, length: int) -> memoryview:
        end = self._at + length
        if end > len(self._data):
            raise Garbage("the bytes end too early")
        part = self._data[self._at : end]
        self._at = end
        return part


class Writer:
    """Collects values."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.length = 0

    def u32(self, *values: int) -> Writer:
        for value in values:
            self.raw(_U32.pack(value))
        return self

    def u64(self, *values: int) -> Writer:
        for value in values:
            self.raw(_U64.pack(value))
        return self

    def boolean(self, value: bool) -> Writer:
        return self.u32(int(value))

    def fixed(self, value: bytes) -> Writer:
        return self.raw(value).raw(bytes(-len(value) % 4))

    def opaque(self, value: bytes) -> Writer:
        return self.u32(len(value)).fixed(value)

    def raw(self, value: bytes) -> Writer:
        self._parts.append(value)
        self.length += len(value)
        return self

    def done(self) -> bytes:
        return b"".join(self._parts)
