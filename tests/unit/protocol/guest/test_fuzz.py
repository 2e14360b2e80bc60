"""Random guests against the decoders: they raise ProtocolError or nothing, quickly, and hold little."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

from mags.protocol.guest import Decoder, FrameType, Hello, ProtocolError, Stats
from mags.protocol.guest.answers import (
    decode_configured,
    decode_entries,
    decode_error,
    decode_exit,
    decode_output,
    decode_pong,
    decode_results,
)
from mags.protocol.guest.frames import MAX_PAYLOAD, encode_frame
from tests.unit.protocol.guest.test_answers import exit_, hello, process

# A tenth of what the parser in C gets: the mutations are the same, the code is smaller.
SECONDS = float(os.environ.get("MAGS_FUZZ_SECONDS", "20")) / 10

DECODERS: dict[Callable[[bytes], object], bytes] = {
    Hello.decode: hello(process(), process(4)),
    decode_configured: b"\x01\x02\0\0\0\0\0\x05\x06\0\0\0\x16\0nope",
    decode_output: b"\x01" + bytes(8) + b"data",
    decode_exit: exit_(0, 3, text=b"why"),
    decode_entries: bytes(28) + b"\x01\0\x01\0ab",
    decode_results: b"\0\0\x01\0\x01\0\0\0ab",
    decode_error: b"\x01\0why",
    decode_pong: bytes(16),
    Stats.decode: bytes(96),
}
NONCE = 99
STREAM = encode_frame(FrameType.HELLO, 0, NONCE.to_bytes(8, "little") + b"\x01\0") + b"".join(
    encode_frame(kind, 1, payload) for kind, payload in zip(FrameType, DECODERS.values(), strict=False)
)


def mutate(dice: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(out) + 1)
        match dice.randrange(5):
            case 0:
                out[at:at] = dice.randbytes(dice.randrange(1, 9))
            case 1:
                del out[at : at + dice.randrange(1, 9)]
            case 2:
                out[at : at + 4] = dice.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\x01\0"))
            case 3:
                out[at:at] = out[: dice.randrange(len(out) + 1)]
            case _ if at < len(out):
                out[at] ^= 1 << dice.randrange(8)
    return bytes(out)


def test_random_guests_raise_only_protocol_errors() -> None:
    dice = random.Random(20)
    end = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < end or rounds < 100:
        rounds += 1
        for decode, sample in DECODERS.items():
            try:
                decode(mutate(dice, sample))
            except ProtocolError:
                pass
        decoder = Decoder(NONCE)
        stream = mutate(dice, STREAM)
        piece = dice.randrange(1, len(stream) + 2)
        try:
            for at in range(0, len(stream), piece):
                decoder.feed(stream[at : at + piece])
        except ProtocolError:
            continue
        assert len(decoder._buffer) <= MAX_PAYLOAD + 16
