"""Forget the token in ~/.mags/config.json. (To make it void everywhere: `mags token revoke`.)"""

from __future__ import annotations

import argparse

from mags.cli.command import Session
from mags.sdk import settings

LOCAL = True


def describe(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(arguments: argparse.Namespace, session: Session) -> int:
    path = settings.config_file()
    config = settings.read_config(path)
    if config.pop("api_token", None) is None:
        session.console.note(f"There is no token in {path}.")
        return 0
    settings.write_config(path, config)
    session.console.note(f"The token in {path} is forgotten.")
    return 0
