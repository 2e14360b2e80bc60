"""What is made of nft's refusals, with and without words."""

from __future__ import annotations

from pathlib import Path

import pytest

from mags.host.network.errors import NetworkUnavailable
from mags.host.network.workshop import apply_rules


@pytest.fixture
def tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to which each call of the `nft` in front of the path adds a line; the tests write that program."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "tries"


def _nft(tries: Path, script: str) -> None:
    program = tries.parent / "nft"
    program.write_text(f"#!/bin/sh\ncat >/dev/null\necho >>{tries}\nn=$(wc -l <{tries})\n{script}\n")
    program.chmod(0o755)


def test_a_failure_without_words_passes(tries: Path) -> None:
    _nft(tries, "[ $n -ge 3 ]")
    apply_rules("add table inet t\n")
    assert len(tries.read_text().splitlines()) == 3


def test_one_that_stays_is_told_by_its_status(tries: Path) -> None:
    _nft(tries, "exit 3")
    with pytest.raises(NetworkUnavailable, match="status 3"):
        apply_rules("add table inet t\n")


def test_wrong_rules_are_not_tried_again(tries: Path) -> None:
    _nft(tries, "echo 'syntax error' >&2; exit 1")
    with pytest.raises(NetworkUnavailable, match="syntax error"):
        apply_rules("add tabel inet t\n")
    assert len(tries.read_text().splitlines()) == 1
