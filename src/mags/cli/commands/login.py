"""Remember a server and a token, in ~/.mags/config.json.

mags login                                    asks for the token
mags login --api-url https://mags.example.org --api-token TOKEN
"""

from __future__ import annotations

import argparse
import os
import sys

from mags.cli.command import MISUSED, Refused, Session
from mags.sdk import settings
from mags.sdk.calls import account


def describe(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Without --api-token the token is asked for, or read from stdin."


def run(arguments: argparse.Namespace, session: Session) -> int:
    path = settings.config_file()
    config = settings.read_config(path)
    url = arguments.api_url or os.environ.get("MAGS_API_URL") or config.get("api_url") or settings.DEFAULT_URL
    token = arguments.api_token or _ask(session, url)
    checked = Session(session.console, api_url=url, api_token=token)
    try:
        me = checked.sender.send(account.me())
    finally:
        checked.close()
    settings.write_config(path, {**config, "api_url": checked.settings.api_url, "api_token": token})
    session.console.note(f"You are {me.get('name')} at {checked.settings.api_url}. Next: mags run 'echo Hello World'")
    return 0


def _ask(session: Session, url: str) -> str:
    if session.console.interactive:
        from getpass import getpass

        token = getpass(f"API token for {url}: ", stream=sys.stderr).strip()
    else:
        token = sys.stdin.readline().strip()
    if not token:
        raise Refused("No token was given. Give one on stdin, or with --api-token.", MISUSED)
    return token
