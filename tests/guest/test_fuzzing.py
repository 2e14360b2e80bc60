"""The agent's parser and its sessions, and the host's decoders, fuzzed. They begin with the first test of this folder
and are asked for last.

MAGS_FUZZ_SECONDS is how long each runs (60). An input that breaks the agent is kept in guest/fuzz/found, and tried by
every later session; what breaks the decoders has a seed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.fuzzing import BUILD_S, EXECUTIONS, HARNESSES, SECONDS, executions, wait


@pytest.mark.timeout(SECONDS + BUILD_S + 60)
@pytest.mark.parametrize("harness", HARNESSES)
def test_fuzzing_finds_nothing(fuzzers: Path, harness: str) -> None:
    status, said = wait(harness, fuzzers)
    assert status == 0, said[-4000:]
    assert executions(said) >= EXECUTIONS, said[-4000:]
