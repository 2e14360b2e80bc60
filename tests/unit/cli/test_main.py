from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from mags.cli import commands
from mags.cli.command import parser
from mags.cli.table_of_commands import COMMANDS
from mags.sdk.transports import ConnectionBroke
from tests.unit.cli.conftest import Mags


def test_every_file_is_a_command_and_every_command_has_a_file() -> None:
    folder = Path(commands.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == {entry.module for entry in COMMANDS.values()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(mags: Mags, name: str) -> None:
    outcome = mags(name, "--help")
    assert outcome.status == 0 and outcome.out.startswith(f"usage: mags {name}")
    assert mags("help", name).out == outcome.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_says_what_it_is_for(name: str) -> None:
    made = parser(import_module(f"mags.cli.commands.{COMMANDS[name].module}"), name)
    silent = [action.dest for action in made._actions if action.help is None and action.choices is None]
    assert set(silent) <= {"workspace", "name"}


SLOW = {"httpx", "nats", "pydantic", "sqlalchemy", "fastapi", "pyroute2", "msgspec"}


def modules_after(*commands: list[str]) -> set[str]:
    """The modules that a process has loaded when it has run these command lines."""
    program = """
import json, sys
from mags.cli.main import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit:
        pass
print(json.dumps(list(sys.modules)), file=sys.stderr)
"""
    words = [sys.executable, "-c", program, json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_loads_nothing_slow() -> None:
    loaded = modules_after(["--help"], *([name, "--help"] for name in COMMANDS))
    assert "mags.cli.commands.run" in loaded
    assert loaded & (SLOW | {"asyncio", "mags.sdk.client"}) == set()


def test_the_commands_about_this_machine_load_no_server(tmp_path: Path) -> None:
    place = ["--data-dir", str(tmp_path)]
    loaded = modules_after(["image", "list", *place], ["down", *place])
    assert "mags.host.images" in loaded
    assert loaded & {"mags.host.app", "mags.supervisor.app", "nats", "sqlalchemy", "pyroute2", "httpx"} == set()


def test_no_command_prints_the_overview(mags: Mags) -> None:
    assert mags().status == 2
    outcome = mags("--help")
    assert outcome.status == 0 and all(f"  {name} " in outcome.out for name in COMMANDS)


def test_a_slip_of_the_finger_is_guessed(mags: Mags) -> None:
    outcome = mags("lsit")
    assert outcome.status == 2 and "did you mean 'list'" in outcome.err and outcome.out == ""


def test_wrong_arguments_are_said_in_one_line(mags: Mags) -> None:
    outcome = mags("status", "--colour")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == "error: Unrecognized arguments: --colour. See `mags status --help`.\n"


def test_the_version_is_printed(mags: Mags) -> None:
    assert mags("--version").out.startswith("mags 0.")


def test_a_command_fails_with_one_and_the_servers_words(mags: Mags) -> None:
    outcome = mags("status", "x", answer=(404, {"error": "There is no job 'x'.", "code": "not_found"}))
    assert (outcome.status, outcome.out, outcome.err) == (1, "", "error: There is no job 'x'.\n")


def test_no_server_says_what_to_do(mags: Mags) -> None:
    outcome = mags("run", "true", answer=ConnectionBroke("no", sent=False, refused=True))
    assert outcome.status == 125
    assert outcome.err == "error: No server at http://mags.test. Start one with `mags up`, or set MAGS_API_URL.\n"


def test_no_token_says_what_to_do(mags: Mags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAGS_API_TOKEN")
    outcome = mags("list")
    assert outcome.status == 1 and "mags login" in outcome.err


def test_the_words_of_a_server_cannot_steer_the_terminal(mags: Mags) -> None:
    evil = {"jobs": [], "total": 0, "page": 1, "page_size": 20}
    name = "\x1b[2Jgone\r"
    from tests.unit.cli.conftest import JOB

    outcome = mags("list", answer={**evil, "jobs": [{**JOB, "name": name}], "total": 1})
    assert "\x1b" not in outcome.out and "?[2Jgone?" in outcome.out


def test_the_complaint_of_a_server_cannot_steer_the_terminal(mags: Mags) -> None:
    outcome = mags("status", "x", answer=(404, {"error": "No\x1b]0;title\x07 job.\nLook again."}))
    assert outcome.err == "error: No?]0;title? job.\nLook again.\n"


@pytest.mark.parametrize(("error", "said"), [
    (TimeoutError("A process did not end."), "A process did not end."), (TimeoutError(), "It took too long."),
    (OSError(28, "No space left on device"), "No space left on device: the output."),
    (OSError(16, "Device or resource busy", "/d"), "Device or resource busy: /d."),
])  # fmt: skip
def test_an_error_of_the_system_is_said_as_it_is(
    mags: Mags, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    def fails(*_: object) -> int:
        raise error

    monkeypatch.setattr("mags.cli.commands.pool.run", fails)
    outcome = mags("pool")
    assert (outcome.status, outcome.err) == (1, f"error: {said}\n")


def test_interrupting_is_130(mags: Mags) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    outcome = mags("list", answer=interrupted)
    assert (outcome.status, outcome.err) == (130, "error: Interrupted.\n")
