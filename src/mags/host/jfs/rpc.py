"""ONC RPC version 2 (RFC 5531) over TCP: records, calls and replies. Pure.

record: 4 bytes (highest bit: last fragment; else its length), then that many bytes; fragments join to a message.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mags.host.jfs.xdr import Garbage, Reader, Writer

RECORD_LIMIT = (1 << 20) + (8 << 10)
"""Bytes of a call: the largest write, and its arguments."""
FRAGMENTS_LIMIT = 64
CALL, REPLY = 0, 1
AUTH_NONE, AUTH_SYS = 0, 1
AUTH_LIMIT = 400
LAST = 1 << 31

SUCCESS, PROG_UNAVAIL, PROG_MISMATCH, PROC_UNAVAIL, GARBAGE_ARGS, SYSTEM_ERR = range(6)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who the guest's kernel says is asking (AUTH_SYS). Nobody without it."""

    uid: int = 65534
    gid: int = 65534
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    xid: int
    program: int
    version: int
    procedure: int
    caller: Caller
    arguments: memoryview


class RecordReader:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._message = bytearray()
        self._fragments = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now. Garbage when one is too long."""
        self._buffer += data
        found: list[bytes] = []
        while len(self._buffer) >= 4:
            mark = struct.unpack_from(">I", self._buffer)[0]
            length = mark & ~LAST
            self._fragments += 1
            if length + len(self._message) > RECORD_LIMIT or self._fragments > FRAGMENTS_LIMIT:
                raise Garbage("a record that is too long")
            if len(self._buffer) < 4 + length:
                self._fragments -= 1
                break
            self._message += self._buffer[4 : 4 + length]
            del self._buffer[: 4 + length]
            if mark & LAST:
                found.append(bytes(self._message))
                self._message.clear()
                self._fragments = 0
        return found


def parse_call(message: bytes) -> Call:
    """Garbage if it is none. Versions of RPC other than 2 are garbage too: nobody speaks them."""
    reader = Reader(message)
    xid, kind, version, program, program_version, procedure = (reader.u32() for _ in range(6))
    if kind != CALL or version != 2:
        raise Garbage("not a call of RPC version 2")
    flavor, body = reader.u32(), reader.opaque(AUTH_LIMIT)
    reader.u32()
    reader.opaque(AUTH_LIMIT)
    caller = _caller(body) if flavor == AUTH_SYS else Caller()
    return Call(xid, program, program_version, procedure, caller, reader.rest())


def _caller(body: bytes) -> Caller:
    reader = Reader(body)
    reader.u32()  # a time stamp
    reader.opaque(255)  # the machine's name
    uid, gid, count = reader.u32(), reader.u32(), reader.u32()
    if count > 16:
        raise Garbage("more groups than may be")
    return Caller(uid, gid, tuple(reader.u32() for _ in range(count)))


def reply(xid: int, status: int, body: bytes = b"") -> bytes:
    """One record with an accepted reply. `body`: results, or the versions of a PROG_MISMATCH."""
    head = Writer().u32(xid, REPLY, 0, AUTH_NONE, 0, status).done()
    return struct.pack(">I", LAST | len(head) + len(body)) + head + body
