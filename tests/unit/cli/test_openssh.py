from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from mags.cli import openssh
from mags.cli.command import Session
from mags.cli.console import Console
from mags.control.records.public_keys import new_pair
from mags.sdk import wire
from mags.sdk.errors import TransferFailed
from mags.sdk.testing import Answer, MockTransport, SeenRequest
from tests.unit.cli.conftest import JOB, Mags

ACCESS = {
    "success": True, "ssh_host": "127.0.0.1", "ssh_port": 2222, "ssh_user": "root", "ssh_private_key": "KEY",
    "ssh_host_key": "ssh-ed25519 AAAA comment",
}  # fmt: skip
PRIVATE, PUBLIC = new_pair()


def ask(
    home: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, seen: list[SeenRequest] | None = None
) -> openssh.SshAccess:
    def answered(request: SeenRequest) -> Answer:
        if seen is not None:
            seen.append(request)
        return answer

    monkeypatch.setattr(wire, "Wire", lambda url: MockTransport(answered))
    session = Session(Console(), api_url="http://x", api_token="t")
    return openssh.access(session, "42/../x")


def test_the_key_is_kept_where_only_we_can_read_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = ask(home, monkeypatch, ACCESS)
    assert access.key == home / "keys" / "42____x"
    assert access.key.read_text() == "KEY\n" and stat.S_IMODE(access.key.stat().st_mode) == 0o600


def test_a_key_is_used_again_as_long_as_the_server_takes_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SeenRequest] = []
    ask(home, monkeypatch, {**ACCESS, "ssh_private_key": PRIVATE}, seen)
    access = ask(home, monkeypatch, {**ACCESS, "ssh_private_key": None}, seen)
    assert access.key.read_text() == PRIVATE
    ask(home, monkeypatch, ACCESS, seen)
    assert access.key.read_text() == "KEY\n"
    has = {"port": 22, "public_key": PUBLIC.line}
    assert [request.json for request in seen] == [{"port": 22}, has, has]


@pytest.mark.parametrize("damage", ["", "KEY", PRIVATE[:60], PRIVATE.replace("b3BlbnNz", "!"), "-----x-----AAAA-----"])
def test_a_damaged_key_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    seen: list[SeenRequest] = []
    ask(home, monkeypatch, {**ACCESS, "ssh_private_key": PRIVATE}).key.write_text(damage)
    access = ask(home, monkeypatch, {**ACCESS, "ssh_private_key": PRIVATE}, seen)
    assert access.key.read_text() == PRIVATE and seen[0].json == {"port": 22}


def test_a_key_that_others_can_read_is_not_used_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SeenRequest] = []
    ask(home, monkeypatch, {**ACCESS, "ssh_private_key": PRIVATE}).key.chmod(0o644)
    access = ask(home, monkeypatch, {**ACCESS, "ssh_private_key": PRIVATE}, seen)
    assert stat.S_IMODE(access.key.stat().st_mode) == 0o600 and seen[0].json == {"port": 22}


def test_a_server_that_gives_no_key_to_one_who_has_none_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransferFailed, match="lacks a key"):
        ask(home, monkeypatch, {**ACCESS, "ssh_private_key": None})


def test_hosts_are_known_by_what_the_server_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ask(home, monkeypatch, ACCESS).known_hosts
    ask(home, monkeypatch, {**ACCESS, "ssh_host": "ssh.example.org", "ssh_port": 22})
    assert known.read_text() == "[127.0.0.1]:2222 ssh-ed25519 AAAA\nssh.example.org ssh-ed25519 AAAA\n"
    ask(home, monkeypatch, {**ACCESS, "ssh_host_key": "ssh-ed25519 BBBB"})
    assert "[127.0.0.1]:2222 ssh-ed25519 BBBB\n" in known.read_text() and len(known.read_text().splitlines()) == 2


def test_ssh_asks_nothing_and_trusts_nobody_else(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = openssh.command_line(ask(home, monkeypatch, ACCESS), ["-L", "1:h:2"], ["uname", "-a"])
    assert words[0] == "ssh" and words[-6:] == ["-L", "1:h:2", "127.0.0.1", "--", "uname", "-a"]
    assert {"StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "ForwardAgent=no"} <= set(words)


def test_an_answer_that_lacks_something_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransferFailed, match="ssh_port"):
        ask(home, monkeypatch, {key: value for key, value in ACCESS.items() if key != "ssh_port"})


@pytest.mark.parametrize("wrong", [
    {"ssh_host": "-oProxyCommand=touch /tmp/x"}, {"ssh_host": "a b"}, {"ssh_host": "x\n* ssh-ed25519 EVIL"},
    {"ssh_host": ""}, {"ssh_port": 0}, {"ssh_port": 65536}, {"ssh_host": None},
])  # fmt: skip
def test_a_server_can_not_slip_options_into_ssh(
    home: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    with pytest.raises(TransferFailed):
        ask(home, monkeypatch, {**ACCESS, **wrong})
    assert not (home / "known_hosts").exists()


def test_ssh_makes_the_sandbox_and_becomes_ssh(mags: Mags, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr("os.execvp", lambda program, words: called.append(words))
    monkeypatch.setattr("subprocess.run", lambda words, check: type("Done", (), {"returncode": 7}))
    monkeypatch.setattr("shutil.which", lambda program: "/usr/bin/ssh")
    answers: list[Answer] = [(404, {"error": "no"}), {"request_id": "42"}, {**JOB, "status": "running"}, ACCESS]
    outcome = mags("ssh", "dev", "--", "true", answer=lambda _: answers.pop(0))
    assert called[0][-2:] == ["--", "true"] and outcome.status == 7
    assert outcome.err == "making sandbox dev\ndev is at root@127.0.0.1, port 2222\n"
    assert outcome.seen[1].json["workspace_id"] == "dev"


@pytest.mark.parametrize(
    "words", [["-L", "1:h:2", "-N", "dev", "--", "ls", "-L"], ["dev", "-L", "1:h:2", "-N", "--", "ls", "-L"]]
)
def test_options_of_ssh_stand_before_or_behind_the_name(
    mags: Mags, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    called: list[tuple[list[str], list[str]]] = []

    def connect(access: openssh.SshAccess, options: list[str], command: list[str]) -> int:
        called.append((options, command))
        return 0

    monkeypatch.setattr(openssh, "connect", connect)
    monkeypatch.setattr("shutil.which", lambda program: "/usr/bin/ssh")
    answers: list[Answer] = [{**JOB, "status": "running"}, ACCESS]
    assert mags("ssh", *words, answer=lambda _: answers.pop(0)).status == 0
    assert called == [(["-L", "1:h:2", "-N"], ["ls", "-L"])]
