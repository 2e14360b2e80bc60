"""The agent's own tests in C, and its size."""

from __future__ import annotations

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
