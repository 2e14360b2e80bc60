from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.host.jfs.listings import FIRST, cookie_of
from mags.host.jfs.rpc import LAST, RECORD_LIMIT, Caller, RecordReader, parse_call, reply
from mags.host.jfs.xdr import Garbage, Reader, Writer


@given(st.binary(max_size=100), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.booleans())
def test_what_is_written_is_read(data: bytes, small: int, large: int, flag: bool) -> None:
    reader = Reader(Writer().opaque(data).u32(small).u64(large).boolean(flag).fixed(data).done())
    assert reader.opaque(100) == data
    assert (reader.u32(), reader.u64(), reader.boolean()) == (small, large, flag)
    assert reader.fixed(len(data)) == data
    reader.end()


@given(st.binary(max_size=64))
def test_garbage_is_garbage(data: bytes) -> None:
    reads: list[Callable[[Reader], object]] = [
        lambda reader: reader.u32(),
        lambda reader: reader.opaque(8),
        lambda reader: reader.boolean(),
        lambda reader: reader.end(),
    ]
    for read in reads:
        reader = Reader(data)
        try:
            for _ in range(20):
                read(reader)
        except Garbage:
            pass


@given(st.binary(max_size=200))
def test_any_bytes_are_a_call_or_garbage(data: bytes) -> None:
    try:
        parse_call(data)
    except Garbage:
        pass


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5), st.data())
def test_records_come_in_any_pieces(messages: list[bytes], data: st.DataObject) -> None:
    stream = b""
    for message in messages:
        cut = data.draw(st.integers(0, len(message)))
        stream += struct.pack(">I", cut) + message[:cut]
        stream += struct.pack(">I", LAST | len(message) - cut) + message[cut:]
    reader = RecordReader()
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == messages


@pytest.mark.parametrize("stream", [struct.pack(">I", LAST | RECORD_LIMIT + 1), struct.pack(">I", 0) * 65])
def test_records_are_bounded(stream: bytes) -> None:
    with pytest.raises(Garbage, match="too long"):
        RecordReader().feed(stream)


def test_caller() -> None:
    credentials = Writer().u32(5).opaque(b"guest").u32(1000, 100, 2, 7, 8).done()
    call = parse_call(Writer().u32(9, 0, 2, 100003, 3, 1, 1).opaque(credentials).u32(0, 0, 42).done())
    assert call.caller == Caller(1000, 100, (7, 8))
    assert (call.xid, call.program, call.version, call.procedure, bytes(call.arguments)) == (
        9,
        100003,
        3,
        1,
        struct.pack(">I", 42),
    )
    assert parse_call(Writer().u32(9, 0, 2, 100003, 3, 1, 0, 0, 0, 0).done()).caller.uid == 65534
    assert reply(9, 0, b"body")[4:8] == struct.pack(">I", 9)


@given(st.binary(min_size=1, max_size=255))
def test_cookies_are_not_those_of_the_dots(name: bytes) -> None:
    assert FIRST <= cookie_of(name) < 1 << 63
