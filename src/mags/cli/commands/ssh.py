"""Open a shell in a sandbox, or run a command there. A sandbox that isn't there is made.

mags ssh dev
mags ssh dev -- uname -a
mags ssh dev -L 8000:localhost:8000
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from mags.cli.command import PLATFORM_FAILED, Parser, Refused, Session
from mags.cli.sandboxes import find, make
from mags.sdk.errors import MagsError

PLATFORM = True
NO_GATEWAY = ("not_available", "unavailable")
"""Codes of a server that has no SSH gateway now."""


def describe(parser: argparse.ArgumentParser) -> None:
    _add_options(parser)
    parser.add_argument("name", help="the sandbox: name, workspace or request id")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and a command")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p", "--persistent", action="store_true", help="if it is made: keep its files in the object store"
    )
    parser.add_argument("-L", dest="forward", action="append", default=[], metavar="[ADDRESS:]PORT:HOST:PORT",
                        help="lead a port of this machine into it (repeatable)")  # fmt: skip
    parser.add_argument("-D", dest="proxy", action="append", default=[], metavar="[ADDRESS:]PORT",
                        help="a SOCKS proxy into it (repeatable)")  # fmt: skip
    parser.add_argument("-N", dest="no_command", action="store_true", help="forward ports only")


def _take_options_behind_the_name(arguments: argparse.Namespace) -> None:
    """As `ssh` does: the command begins behind `--`, or with the first word that is no option."""
    if arguments.command[:1] != ["--"] and "".join(arguments.command[:1]).startswith("-"):
        behind = Parser(prog="mags ssh", add_help=False, allow_abbrev=False)
        _add_options(behind)
        behind.add_argument("command", nargs=argparse.REMAINDER)
        behind.parse_args(arguments.command, arguments)


def run(arguments: argparse.Namespace, session: Session) -> int:
    _take_options_behind_the_name(arguments)
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    job = find(session, arguments.name)
    if job is None:
        session.console.note(f"making sandbox {arguments.name}")
        job = make(session, arguments.name, synced=arguments.persistent)
    request_id = job["request_id"]
    if shutil.which("ssh") is None:
        return _through_the_api(arguments, session, request_id, command, "There is no `ssh` here")
    from mags.cli import openssh

    try:
        access = openssh.access(session, request_id)
    except MagsError as error:
        if error.code not in NO_GATEWAY:
            raise
        return _through_the_api(arguments, session, request_id, command, f"No SSH gateway ({error})")
    options = [word for forward in arguments.forward for word in ("-L", forward)]
    options += [word for proxy in arguments.proxy for word in ("-D", proxy)]
    if arguments.no_command:
        options.append("-N")
    session.console.note(f"{arguments.name} is at {access.user}@{access.host}, port {access.port}")
    session.close()
    return openssh.connect(access, options, command)


def _through_the_api(
    arguments: argparse.Namespace, session: Session, request_id: str, command: list[str], why: str
) -> int:
    if arguments.forward or arguments.proxy or arguments.no_command:
        raise Refused(f"{why}, so no port can be forwarded: open it to the web instead (`mags url`).", PLATFORM_FAILED)
    session.console.note(f"{why}: going through the API instead.")
    from mags.cli.terminal import converse, window_size
    from mags.sdk.exec_protocol import start_message
    from mags.sdk.process import Process

    terminal = not command and os.name == "posix" and sys.stdin.isatty()
    start = start_message(
        " ".join(command) if command else None,
        pty=window_size() if terminal else None,
        term=os.environ.get("TERM") or "xterm",
    )
    with Process(session.settings, request_id, start) as process:
        return converse(process, session.console, stdin=True, terminal=terminal)
