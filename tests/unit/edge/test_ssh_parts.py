"""The pure parts of the SSH gateway."""

from __future__ import annotations

from pathlib import Path

import asyncssh
import pytest

from mags.edge.ssh import keys, shell


def test_a_host_key_is_made_once_and_private(tmp_path: Path) -> None:
    first = keys.host_key(tmp_path)
    again = keys.host_key(tmp_path)

    assert keys.line(first) == keys.line(again)
    assert keys.line(first).startswith("ssh-ed25519 AAAA")
    assert (tmp_path / keys.KEY_NAME).stat().st_mode & 0o777 == 0o600


def test_a_damaged_host_key_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / keys.KEY_NAME).write_text("damaged")
    with pytest.raises(ValueError, match="restore it, or remove it"):
        keys.host_key(tmp_path)
    assert (tmp_path / keys.KEY_NAME).read_text() == "damaged"


def test_a_line_has_no_comment() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519", comment="somebody@somewhere")
    assert len(keys.line(key).split()) == 2


def test_only_strong_algorithms_are_spoken() -> None:
    spoken = keys.algorithms()
    names = [name for one in spoken.values() for name in one]

    assert "curve25519-sha256" in spoken["kex_algs"]
    assert not [name for name in names if "sha1" in name or "cbc" in name or "md5" in name or "arcfour" in name]
    assert not {"ssh-rsa", "ssh-dss", "3des-cbc", "none"} & set(names)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({b"LANG": b"C"}, {"LANG": "C"}),
        ({b"A": "ü".encode()}, {"A": "ü"}),
        ({b"bad name": b"x", b"1X": b"x", b"": b"x", b"X=Y": b"x"}, {}),
        ({b"NUL": b"a\0b"}, {}),
        ({b"RAW": b"\xff"}, {"RAW": "\ufffd"}),
    ],
    ids=["plain", "utf-8", "names", "nul", "not-utf-8"],
)
def test_an_environment_holds_only_what_one_can(given: dict[bytes, bytes], kept: dict[str, str]) -> None:
    assert shell._environment(given) == kept


def test_a_client_sets_no_more_than_there_is_room_for() -> None:
    many, big, again = shell.Environment(), shell.Environment(), shell.Environment()
    for number in range(1000):
        many[b"%d" % number] = b"x"
    big[b"BIG"] = b"x" * 70_000
    big[b"SMALL"] = b"x"
    for _ in range(100):
        again[b"AGAIN"] = b"x" * 1000
    assert (len(many), dict(big), len(again[b"AGAIN"])) == (shell.VARIABLES, {}, 1000)


@pytest.mark.parametrize(
    ("given", "size"), [((80, 24), (80, 24)), ((0, 0), (80, 24)), ((4_000_000_000, 24), (10_000, 24))]
)
def test_a_terminals_size_is_one_that_a_guest_can_take(given: tuple[int, int], size: tuple[int, int]) -> None:
    assert shell._size(*given) == size


@pytest.mark.parametrize(("name", "number"), [("INT", 2), ("KILL", 9), ("USR1", 10), ("int", 2), ("NOPE", None)])
def test_signals_have_names_without_sig(name: str, number: int | None) -> None:
    assert shell._signal_number(name) == number
