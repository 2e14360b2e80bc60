"""The agent's own tests in C, its size, and its other processor."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.guest import kit

MAX_BYTES = 200_000
"""Each clone pages the agent in anew."""


@pytest.mark.parametrize("test", ["build/test-vectors", "build/test-ring"])
def test_the_tests_in_c_pass(test: str) -> None:
    program = kit.build(test)
    done = subprocess.run([program, kit.GUEST / "vectors"], capture_output=True, text=True, timeout=kit.TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_agent_is_small() -> None:
    assert kit.build("build/mags-agent").stat().st_size < MAX_BYTES


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-gcc"), reason="no compiler for aarch64")
def test_it_builds_for_aarch64() -> None:
    head = kit.build("build/mags-agent-aarch64").read_bytes()[:20]
    assert head[:4] == b"\x7fELF" and int.from_bytes(head[18:20], "little") == 183, "EM_AARCH64"
