"""The fuzzers of both ends, run beside the other tests: with what the machine has left of its processors."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from mags.protocol.guest import Configure, FrameType
from mags.protocol.guest.frames import END_OF_INPUT, MORE, encode_frame
from tests.guest import kit
from tests.unit.protocol.guest.vectors import WISHES, lines, unhex

ROOT = kit.GUEST.parent
SECONDS = int(os.environ.get("MAGS_FUZZ_SECONDS", "60"))
BUILD_S = 240
"""Beyond that: building them, and their last input."""
EXECUTIONS = 5 * SECONDS
"""At least; on an idle processor even the slowest does a hundred times as many."""
MAX_SIZE = 64 * 1024
STATUS = "status"
"""The file in which a fuzzer's exit status is, once it has ended."""
FOUND = kit.GUEST / "fuzz" / "found"
"""Inputs that once broke something: a folder for each harness."""


def place(config: pytest.Config) -> Path:
    """The directory of the session's fuzzers, whichever of its workers asks."""
    within = Path(config.option.basetemp)
    return (within.parent if hasattr(config, "workerinput") else within) / "fuzzing"


def begin(harness: str, folder: Path) -> None:
    """From its build to its end, in the background; once, though several workers may begin it."""
    here = folder / harness
    try:
        here.mkdir(parents=True)
    except FileExistsError:
        return
    (here / "artefacts").mkdir()
    seeds = SEEDS.get(harness)
    command = _decoder() if seeds is None else _native(harness, seeds(), here)
    # At the lowest priority, so that no other test waits for it.
    script = f"""nice -n 19 "$@"
        echo $? > {STATUS}.new && mv {STATUS}.new {STATUS}"""
    with (here / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", script, "sh", *command],
            cwd=here,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (here / "pid").write_text(str(process.pid))
    _begun.append(process)


def _decoder() -> list[str]:
    return [sys.executable, "-m", "tests.guest.fuzz_decoder", str(SECONDS)]


def _native(harness: str, seeds: Mapping[str, bytes], here: Path) -> list[str]:
    """A command that makes it first, so that nobody waits for it."""
    corpus = here / "corpus"
    corpus.mkdir()
    for name, seed in seeds.items():
        (corpus / name).write_bytes(seed)
    options = [
        f"-max_total_time={SECONDS}",
        f"-max_len={MAX_SIZE}",
        f"-artifact_prefix={here}/artefacts/",
        "-rss_limit_mb=1024",
        "-timeout=60",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    script = 'flock "$0" make -s -C "$0" "build/$1" && harness=$0/build/$1 && shift && exec "$harness" "$@"'
    return ["sh", "-c", script, str(kit.GUEST), harness, *options, str(corpus), *map(str, FOUND.glob(harness))]


_begun: list[subprocess.Popen[bytes]] = []


def wait(harness: str, folder: Path) -> tuple[int, str]:
    """Its status and what it said. Inputs that broke something are in `found` from now on."""
    here = folder / harness
    deadline = time.monotonic() + SECONDS + BUILD_S
    while not (here / STATUS).exists():
        assert time.monotonic() < deadline, f"{harness} does not end"
        time.sleep(0.1)
    said = (here / "log").read_text(errors="replace")
    for artefact in sorted((here / "artefacts").iterdir()):
        kept = FOUND / harness / artefact.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artefact, kept)
        said += f"\nThe input that broke it is kept: {kept}"
    return int((here / STATUS).read_text()), said


def executions(said: str) -> int:
    """How many inputs it has tried."""
    found = re.search(r"stat::number_of_executed_units: +(\d+)", said)
    return int(found[1]) if found else 0


def end(folder: Path) -> None:
    """Nothing of them lives on."""
    for file in folder.glob("*/pid"):
        if not (file.parent / STATUS).exists():
            with suppress(ProcessLookupError):
                os.killpg(int(file.read_text()), signal.SIGKILL)
    for process in _begun:
        process.wait()


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


SEEDS = {"fuzz-parser": parsers, "fuzz-session": sessions}
"""Of the harnesses in C: what they begin with."""
HARNESSES = [*SEEDS, "fuzz-decoder"]
