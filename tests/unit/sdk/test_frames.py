from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.sdk.errors import TransferFailed
from mags.sdk.frames import HEAD, LIMIT, Chunk, Decoder, End

LAST = json.dumps({"exit_code": 3, "error": None, "status": "error"}).encode()


def frame(stream: int, data: bytes) -> bytes:
    return HEAD.pack(stream, len(data)) + data


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, position = [], 0
    for size in sizes:
        pieces.append(data[position : position + size])
        position += size
    return [*pieces, data[position:]]


@given(
    chunks=st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=50)), max_size=20),
    sizes=st.lists(st.integers(0, 30), max_size=60),
)
def test_frames_come_out_however_the_bytes_are_cut(chunks: list[tuple[int, bytes]], sizes: list[int]) -> None:
    decoder = Decoder()
    data = b"".join(frame(stream, data) for stream, data in chunks) + frame(0, LAST)
    found = [got for piece in cut(data, sizes) for got in decoder.feed(piece)]
    assert found == [*(Chunk(stream, data) for stream, data in chunks if data), End(3, None, "error")]
    assert decoder.ended
    assert decoder.offsets == {n: sum(len(data) for stream, data in chunks if stream == n) for n in (1, 2, 3)}


def test_nothing_comes_after_the_end() -> None:
    decoder = Decoder()
    assert list(decoder.feed(frame(0, LAST) + frame(1, b"late"))) == [End(3, None, "error")]


def test_the_half_of_a_frame_is_dropped_with_its_connection() -> None:
    decoder = Decoder()
    assert list(decoder.feed(frame(1, b"whole") + frame(1, b"half")[:-2])) == [Chunk(1, b"whole")]
    decoder.reconnected()
    assert decoder.offsets[1] == 5
    assert list(decoder.feed(frame(1, b"half"))) == [Chunk(1, b"half")]


def test_bytes_that_are_gone_count_as_arrived_and_are_spoken_of() -> None:
    decoder = Decoder()
    found = list(decoder.feed(frame(4, b'{"stream": 2, "bytes": 1000}') + frame(2, b"rest")))
    assert found[1:] == [Chunk(2, b"rest")] and decoder.offsets == {1: 0, 2: 1004, 3: 0}
    assert isinstance(found[0], Chunk) and found[0].stream == 3 and b"1000 bytes" in found[0].data


@pytest.mark.parametrize(
    "data",
    [
        b"<html>",
        HEAD.pack(1, LIMIT + 1),
        HEAD.pack(5, 0),
        *(frame(4, text) for text in (b"", b"[]", b"{}", b'{"stream": 4, "bytes": 1}', b'{"stream": 1, "bytes": -1}')),
    ],
)
def test_other_things_than_frames_are_refused(data: bytes) -> None:
    with pytest.raises(TransferFailed):
        list(Decoder().feed(data))


@pytest.mark.parametrize("end", [b"", b"[]", b"{}", b"\xff", b'"x"'])
def test_an_unreadable_end_is_refused(end: bytes) -> None:
    with pytest.raises(TransferFailed):
        list(Decoder().feed(frame(0, end)))


def test_feeding_may_be_stopped_in_the_middle() -> None:
    decoder = Decoder()
    stream = decoder.feed(frame(1, b"a") + frame(1, b"b"))
    assert next(stream) == Chunk(1, b"a")
    del stream
    assert list(decoder.feed(b"")) == [Chunk(1, b"b")]
