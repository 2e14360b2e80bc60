"""Say who you are, and at which server."""

from __future__ import annotations

import argparse

from mags.cli.command import Session, add_json
from mags.sdk.calls import account


def describe(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    me = session.sender.send(account.me())
    if arguments.json:
        session.console.json({**me, "api_url": session.settings.api_url})
    else:
        shown = {name: value for name, value in me.items() if not isinstance(value, dict | list)}
        session.console.record({**shown, "server": session.settings.api_url})
    return 0
