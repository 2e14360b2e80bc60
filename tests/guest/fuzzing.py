"""The agent's fuzzers, run beside the other tests: with what the machine has left of its processors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from mags.protocol.guest import Configure, FrameType
from mags.protocol.guest.frames import END_OF_INPUT, MORE, encode_frame
from tests.guest import kit
from tests.unit.protocol.guest.vectors import WISHES, lines, unhex

SECONDS = int(os.environ.get("MAGS_FUZZ_SECONDS", "60"))
BUILD_S = 240
"""Beyond that: building them, and their last input."""
MAX_SIZE = 64 * 1024
FOUND = kit.GUEST / "fuzz" / "found"
"""Inputs that once broke something: a folder for each harness."""


class Fuzzer:
    """One of them, from its build to its end."""

    def __init__(self, harness: str, seeds: Mapping[str, bytes], place: Path) -> None:
        self.harness = harness
        self._artefacts = place / "artefacts"
        corpus = place / "corpus"
        for folder in (self._artefacts, corpus):
            folder.mkdir(parents=True)
        for name, seed in seeds.items():
            (corpus / name).write_bytes(seed)
        options = [
            f"-max_total_time={SECONDS}",
            f"-max_len={MAX_SIZE}",
            f"-artifact_prefix={self._artefacts}/",
            "-rss_limit_mb=1024",
            "-timeout=60",
            "-verbosity=0",
        ]
        # Made here too, so that nobody waits for it; at the lowest priority, so that no other test does.
        script = 'make -s -C "$0" "build/$1" && harness=$0/build/$1 && shift && exec nice -n 19 "$harness" "$@"'
        words = ["sh", "-c", script, str(kit.GUEST), harness, *options, str(corpus), *map(str, FOUND.glob(harness))]
        self._log = place / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                words, cwd=place, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._deadline = time.monotonic() + SECONDS + BUILD_S

    def wait(self) -> tuple[int, str]:
        """Its status and what it said. Inputs that broke something are in `found` from now on."""
        status = self._process.wait(max(1.0, self._deadline - time.monotonic()))
        said = self._log.read_text(errors="replace")
        for artefact in sorted(self._artefacts.iterdir()):
            kept = FOUND / self.harness / artefact.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artefact, kept)
            said += f"\nThe input that broke it is kept: {kept}"
        return status, said

    def end(self) -> None:
        """Nothing of it lives on."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


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


HARNESSES = {"fuzz-parser": parsers, "fuzz-session": sessions}
