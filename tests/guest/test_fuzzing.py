"""The agent's parser and its sessions, fuzzed. They begin with the first test of this folder and are asked for last.

MAGS_FUZZ_SECONDS is how long each runs (60). An input that breaks something is kept in guest/fuzz/found, and tried by
every later session.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.fuzzing import BUILD_S, HARNESSES, SECONDS, wait


@pytest.mark.timeout(SECONDS + BUILD_S + 60)
@pytest.mark.parametrize("harness", HARNESSES)
def test_fuzzing_finds_nothing(fuzzers: Path, harness: str) -> None:
    status, said = wait(harness, fuzzers)
    assert status == 0, said[-4000:]
