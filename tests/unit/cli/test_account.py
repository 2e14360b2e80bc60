from __future__ import annotations

import io
from pathlib import Path

import pytest

from mags.sdk.settings import read_config, write_config
from tests.unit.cli.conftest import Mags


@pytest.fixture(autouse=True)
def unset(mags: Mags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAGS_API_URL")
    monkeypatch.delenv("MAGS_API_TOKEN")


def test_login_checks_the_token_and_remembers_it(mags: Mags, home: Path) -> None:
    outcome = mags("login", "--api-url", "http://x:1/", "--api-token", "t", answer={"name": "ada"})
    assert outcome.status == 0 and "ada" in outcome.err
    assert outcome.seen[0].headers["Authorization"] == "Bearer t"
    assert read_config(home / "config.json") == {"api_url": "http://x:1", "api_token": "t"}


def test_login_reads_the_token_from_stdin(mags: Mags, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from-stdin\n"))
    assert mags("login", answer={"name": "ada"}).status == 0
    assert read_config(home / "config.json")["api_token"] == "from-stdin"


def test_login_without_a_token_is_misuse(mags: Mags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert mags("login").status == 2


def test_a_bad_token_is_not_remembered(mags: Mags, home: Path) -> None:
    outcome = mags("login", "--api-token", "bad", answer=(401, {"error": "This token is not valid."}))
    assert outcome.status == 1 and not (home / "config.json").exists()


def test_logout_forgets_the_token_and_keeps_the_server(mags: Mags, home: Path) -> None:
    write_config(home / "config.json", {"api_url": "http://x", "api_token": "t"})
    assert "forgotten" in mags("logout").err
    assert read_config(home / "config.json") == {"api_url": "http://x"}
    assert "no token" in mags("logout").err


def test_a_private_key_is_never_sent(mags: Mags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGS_API_TOKEN", "t")
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    outcome = mags("ssh-key", "add", str(tmp_path / "id"))
    assert outcome.status == 2 and not outcome.seen
    assert mags("ssh-key", "add", str(tmp_path / "missing")).status == 1


@pytest.mark.parametrize(("words", "kind"), [(("token", "revoke"), "tokens"), (("ssh-key", "remove"), "ssh_keys")])
def test_a_name_that_two_have_is_not_guessed(
    mags: Mags, monkeypatch: pytest.MonkeyPatch, words: tuple[str, str], kind: str
) -> None:
    monkeypatch.setenv("MAGS_API_URL", "http://mags.test")
    monkeypatch.setenv("MAGS_API_TOKEN", "t")
    two = mags(*words, "ci", answer={kind: [{"id": "1", "name": "ci"}, {"id": "2", "name": "ci"}], "total": 2})
    assert two.status == 1 and "Give the id" in two.err and len(two.seen) == 1
    one = mags(*words, "ci", answer={kind: [{"id": "1", "name": "ci"}], "total": 1})
    assert one.status == 0 and one.seen[1].path.endswith("/1")
