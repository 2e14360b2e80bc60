"""Frames, and the decoder's way into step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.protocol.guest import Decoder, Frame, FrameType, ProtocolError
from mags.protocol.guest.frames import (
    LONG_FILLER,
    MAX_MESSAGE,
    MAX_PAYLOAD,
    MAX_SKIPPED,
    MORE,
    encode_frame,
    encode_message,
    encode_reset,
)
from tests.unit.protocol.guest.vectors import lines, unhex

NONCE = 0x0123456789ABCDEF
HELLO = encode_frame(FrameType.HELLO, 0, NONCE.to_bytes(8, "little") + b"\x01\0")


def synced() -> Decoder:
    decoder = Decoder(NONCE)
    assert [frame.type for frame in decoder.feed(HELLO)] == [FrameType.HELLO]
    return decoder


@pytest.mark.parametrize("words", lines("frames.txt"), ids=lambda words: words[0])
def test_frames_are_those_of_the_vectors(words: list[str]) -> None:
    _, kind, flags, id, payload, whole = words
    assert encode_frame(int(kind, 16), int(id, 16), unhex(payload), int(flags, 16)) == unhex(whole)
    frame = Frame(int(kind, 16), int(flags, 16), int(id, 16), unhex(payload))
    assert synced().feed(unhex(whole)) == [frame]


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300))),
    st.integers(1, 100),
)
def test_frames_come_out_as_they_went_in_whatever_the_pieces(
    wanted: list[tuple[int, int, int, bytes]], piece: int
) -> None:
    stream = HELLO + b"".join(encode_frame(kind, id, payload, flags) for kind, flags, id, payload in wanted)
    decoder = Decoder(NONCE)
    frames: list[Frame] = []
    for at in range(0, len(stream), piece):
        frames += decoder.feed(stream[at : at + piece])
    assert frames[1:] == [Frame(*each) for each in wanted]


@given(st.binary(max_size=200), st.integers(1, 50))
def test_everything_before_the_hello_is_skipped(noise: bytes, piece: int) -> None:
    old = encode_frame(FrameType.OUTPUT, 1, b"\x01" + bytes(8) + b"old")
    old_hello = encode_frame(FrameType.HELLO, 0, bytes(10))
    stream = noise + old_hello + old[:-2] + HELLO
    decoder = Decoder(NONCE)
    frames: list[Frame] = []
    for at in range(0, len(stream), piece):
        frames += decoder.feed(stream[at : at + piece])
    assert [(frame.type, frame.payload[:8]) for frame in frames] == [(FrameType.HELLO, NONCE.to_bytes(8, "little"))]


def test_garbage_instead_of_a_hello_has_an_end() -> None:
    decoder = Decoder(NONCE)
    piece = b"M" * 65536
    with pytest.raises(ProtocolError, match="no HELLO"):
        for _ in range(MAX_SKIPPED // len(piece) + 2):
            decoder.feed(piece)


def test_a_second_reset_waits_for_its_own_hello() -> None:
    decoder = synced()
    decoder.expect(77)
    assert decoder.feed(HELLO) == []
    assert not decoder.synced
    assert len(decoder.feed(encode_frame(FrameType.HELLO, 0, (77).to_bytes(8, "little")))) == 1


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"XG" + bytes(14), "magic"),
        (b"MG\x83\0\0\0\0\0\x01\0\x01\0" + bytes(4), "longer than"),
        (encode_frame(FrameType.PING, 1, b"abc")[:-1] + b"d", "checksum"),
        (encode_frame(FrameType.PING, 1)[:15] + b"\xff", "checksum"),
    ],
)
def test_what_is_no_frame_ends_the_channel(stream: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        synced().feed(stream)


def test_a_hello_with_a_bad_checksum_is_an_error_not_a_wait() -> None:
    with pytest.raises(ProtocolError, match="checksum"):
        Decoder(NONCE).feed(HELLO[:-1] + b"\x02")


def test_a_payload_has_a_limit() -> None:
    assert len(encode_frame(1, 1, bytes(MAX_PAYLOAD))) == MAX_PAYLOAD + 16
    with pytest.raises(ValueError, match="longer"):
        encode_frame(1, 1, bytes(MAX_PAYLOAD + 1))


@pytest.mark.parametrize(
    ("size", "pieces"), [(0, 1), (1, 1), (MAX_PAYLOAD, 1), (MAX_PAYLOAD + 1, 2), (MAX_MESSAGE, 32)]
)
def test_a_message_is_cut_into_frames(size: int, pieces: int) -> None:
    message = bytes(range(251)) * (size // 251 + 1)
    frames = synced().feed(encode_message(FrameType.EXEC, 9, message[:size]))
    assert b"".join(frame.payload for frame in frames) == message[:size]
    assert [frame.flags for frame in frames] == [MORE] * (pieces - 1) + [0]


def test_a_message_has_a_limit() -> None:
    with pytest.raises(ValueError, match="longer"):
        encode_message(FrameType.EXEC, 9, bytes(MAX_MESSAGE + 1))


def test_a_thorough_reset_outlasts_any_frame() -> None:
    assert encode_reset(1, thorough=True).startswith(LONG_FILLER)
    assert len(LONG_FILLER) >= MAX_PAYLOAD + 16
    assert len(encode_reset(1)) < 100
