"""The agent's own tests in C, and its fuzzers.

MAGS_FUZZ_SECONDS is how long each fuzzer runs (20).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mags.protocol.guest import Configure, FrameType
from mags.protocol.guest.frames import END_OF_INPUT, MORE, encode_frame
from tests.guest import kit
from tests.unit.protocol.guest.vectors import WISHES, lines, unhex

SECONDS = int(os.environ.get("MAGS_FUZZ_SECONDS", "20"))
MAX_SIZE = 64 * 1024


@pytest.mark.parametrize("test", ["build/test-vectors", "build/test-ring"])
def test_the_tests_in_c_pass(test: str) -> None:
    program = kit.build(test)
    done = subprocess.run([program, kit.GUEST / "vectors"], capture_output=True, text=True, timeout=kit.TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr


def step(kind: int, payload: bytes = b"", flags: int = 0, back: int = 0) -> bytes:
    """A step of fuzz/session.c; `back` counts from the newest process."""
    return bytes((kind, flags, back)) + len(payload).to_bytes(2, "little") + payload


def sessions() -> dict[str, bytes]:
    """Sensible lives of processes, for the fuzzer to begin with."""
    ack = step(FrameType.ACK, b"\x01" + (400).to_bytes(8, "little"))
    stdin = step(FrameType.STDIN, bytes(8) + b"typed") + step(FrameType.STDIN, b"\x05" + bytes(7), END_OF_INPUT)
    rest = step(FrameType.RESIZE, b"\x18\0\x50\0") + step(FrameType.SIGNAL, b"\x0f") + step(0x80)
    again = step(FrameType.RESET, b"\x01\0" + bytes(8)) + step(FrameType.ATTACH, bytes(24)) + step(FrameType.RELEASE)
    requests = b"".join(step(kind) for kind in (FrameType.PING, FrameType.STATS, FrameType.FLUSH, FrameType.THAW))
    configure = step(FrameType.CONFIGURE, Configure(environment={"A": "b"}, root=True, clock_ns=1).encode())
    freeze = step(FrameType.FREEZE, (1000).to_bytes(4, "little"))
    lives = {name: step(FrameType.EXEC, wish.encode()) + ack + stdin + rest + again for name, wish in WISHES.items()}
    half = WISHES["script"].encode()
    lives["pieces"] = step(FrameType.EXEC, half[:9], MORE) + step(FrameType.EXEC, half[9:]) + again
    lives["requests"] = requests + configure + freeze
    return lives


def parsers() -> dict[str, bytes]:
    streams = {words[0]: b"\0\xff" + unhex(words[1]) for words in lines("parser.txt")}
    streams |= {words[0]: b"\0\x01" + unhex(words[5]) for words in lines("frames.txt")}
    return streams | {"largest": b"\0\xff" + encode_frame(FrameType.STDIN, 1, bytes(65536))}


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize(("harness", "seeds"), [("fuzz-parser", parsers()), ("fuzz-session", sessions())])
def test_fuzzing_finds_nothing(harness: str, seeds: dict[str, bytes], tmp_path: Path) -> None:
    program = kit.build(f"build/{harness}")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, seed in seeds.items():
        (corpus / name).write_bytes(seed)
    options = [
        f"-max_total_time={SECONDS}",
        f"-max_len={MAX_SIZE}",
        "-rss_limit_mb=1024",
        "-timeout=60",
        "-verbosity=0",
    ]
    done = subprocess.run(
        [program, *options, str(corpus)], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS + 240
    )
    assert done.returncode == 0, done.stderr[-4000:]
