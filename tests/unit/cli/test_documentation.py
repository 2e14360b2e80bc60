"""docs/commands.md is what the parsers say (MAGS_UPDATE_GOLDEN=1 writes it); the guides leave nothing out."""

from __future__ import annotations

import argparse
import os
from importlib import import_module
from pathlib import Path

from mags.cli.command import parser
from mags.cli.table_of_commands import COMMANDS
from mags.supervisor.config import Settings
from tests.unit.sdk.test_surface import METHODS

DOCS = Path(__file__).parents[3] / "docs"
HEAD = """# Commands

What each `mags` command takes. `mags COMMAND --help` says the same. The tour is [guide.md](guide.md).
"""


def test_the_reference_is_what_the_parsers_say() -> None:
    text = HEAD + "".join(_command(name) for name in COMMANDS)
    file = DOCS / "commands.md"
    if os.environ.get("MAGS_UPDATE_GOLDEN"):
        file.write_text(text)
    assert file.read_text() == text


def test_the_guide_shows_every_command() -> None:
    guide = (DOCS / "guide.md").read_text()
    assert [name for name in COMMANDS if f"mags {name}" not in guide] == []


def test_the_guide_has_every_setting_of_mags_up() -> None:
    guide = (DOCS / "guide.md").read_text()
    assert [name for name in Settings.model_fields if f"`MAGS_UP_{name.upper()}`" not in guide] == []


def test_the_clients_page_has_every_method() -> None:
    page = (DOCS / "sdk.md").read_text()
    assert [name for name in sorted(METHODS) if f"`{name}`" not in page] == []


def _command(name: str) -> str:
    module = import_module(f"mags.cli.commands.{COMMANDS[name].module}")
    made = parser(module, name)
    summary, _, examples = (module.__doc__ or "").strip().partition("\n\n")
    text = f"\n## mags {name}\n\n{' '.join(summary.split())}\n"
    if examples:
        text += f"\n```\n{_dedented(examples)}\n```\n"
    verbs = [action for action in made._actions if isinstance(action, argparse._SubParsersAction)]
    for action in verbs:
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for verb, sub in action.choices.items():
            text += f"\n### mags {name} {verb}\n\n{(helps[verb] or '').capitalize()}.\n{_arguments(sub)}"
    return text + _arguments(made)


def _dedented(text: str) -> str:
    return "\n".join(line.removeprefix("  ") for line in text.splitlines())


def _arguments(made: argparse.ArgumentParser) -> str:
    rows = [_row(action) for action in made._actions if not isinstance(action, argparse._HelpAction)]
    shown = [row for row in rows if row]
    return "\n| argument | meaning |\n|---|---|\n" + "\n".join(shown) + "\n" if shown else ""


def _row(action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction) or {"--api-url", "--api-token"} & {*action.option_strings}:
        return ""
    value = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if action.choices:
        value = "\\|".join(map(str, action.choices))
    if not action.option_strings:
        name = f"`{value}`" + (" ..." if action.nargs in ("+", "*", argparse.REMAINDER) else "")
    else:
        takes = "" if action.nargs == 0 else f" {value}"
        name = ", ".join(f"`{flag}{takes}`" for flag in action.option_strings)
    return f"| {name} | {action.help or ''} |"
