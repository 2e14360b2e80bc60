"""Random guests against the host's decoders: they raise ProtocolError or nothing, and hold little.

    python -m tests.guest.fuzz_decoder SECONDS [SEED]

Each round has a seed of its own, which is told when it breaks something: it is the first of a run that is given it.
"""

from __future__ import annotations

import random
import sys
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


def attack(dice: random.Random) -> None:
    """One round: every decoder once. Raises what should not be."""
    for decode, sample in DECODERS.items():
        try:
            decode(mutate(dice, sample))
        except ProtocolError:
            pass
    decoder = Decoder(NONCE)
    stream = mutate(dice, STREAM)
    piece, limit = dice.randrange(1, len(stream) + 2), dice.choice((1, 2, 128))
    try:
        for at in range(0, len(stream), piece):
            got = decoder.feed(stream[at : at + piece], limit)
            while len(got) == limit:
                got = decoder.feed(b"", limit)
            assert len(got) < limit
    except ProtocolError:
        return
    assert len(decoder._buffer) <= MAX_PAYLOAD + 16


def main(seconds: float, seed: int) -> None:
    end = time.monotonic() + seconds
    rounds = 0
    try:
        while rounds == 0 or time.monotonic() < end:
            attack(random.Random(seed + rounds))
            rounds += 1
    except BaseException:
        print(f"The seed that broke it: {seed + rounds}", file=sys.stderr)
        raise
    # As libFuzzer says it.
    print(f"stat::number_of_executed_units: {rounds}")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().getrandbits(48))
