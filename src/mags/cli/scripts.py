"""Scripts and environments as they are given on a command line."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from mags.cli.command import MISUSED, Refused

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_script(word: str) -> str:
    """The argument itself, `@FILE`, or `-` for stdin."""
    if word == "-":
        data = sys.stdin.buffer.read()
    elif word.startswith("@"):
        try:
            data = Path(word[1:]).read_bytes()
        except OSError as error:
            raise Refused(f"The script {word[1:]} can't be read: {error.strerror}.", MISUSED) from error
    else:
        return word
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Refused("The script is not UTF-8 text. Copy a program with `--file` and run that.", MISUSED) from error


def read_environment(words: list[str]) -> dict[str, str]:
    """`K=V`, or `K` for the value that K has here."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not NAME.fullmatch(name):
            raise Refused(f"{word!r} is no environment variable. Give NAME=VALUE.", MISUSED)
        if not equals:
            if name not in os.environ:
                raise Refused(f"{name} is not set here. Give {name}=VALUE.", MISUSED)
            value = os.environ[name]
        found[name] = value
    return found
