"""Show what a job wrote; with -f until its script has ended."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from mags.cli.command import Session, add_json
from mags.cli.output import exit_status, follow, interrupts_as_exceptions
from mags.sdk.calls import jobs


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", help="request id, name or workspace")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the script ends; exit with its status")
    parser.add_argument("--since", metavar="TIME", help="only what came after this (ISO 8601)")
    parser.add_argument("--tail", type=int, metavar="N", help="only the last N lines")
    parser.add_argument("-t", "--timestamps", action="store_true", help="say when each line came")
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    if arguments.follow:
        interrupts_as_exceptions()
        if arguments.json or arguments.timestamps or arguments.since or arguments.tail is not None:
            return _follow_lines(arguments, session)
        return exit_status(session, follow(session, arguments.job))
    found = session.sender.send(jobs.logs(arguments.job, since=arguments.since, tail=arguments.tail))
    if arguments.json:
        session.console.json(found)
        return 0
    for line in found["logs"]:
        _print(line, arguments, session)
    return 0


def _follow_lines(arguments: argparse.Namespace, session: Session) -> int:
    """With --json one object a line, the last one the end."""
    from mags.sdk.frames import End

    end: dict[str, Any] = {}
    for name, found in session.sender.lines(arguments.job, since=arguments.since, tail=arguments.tail):
        if arguments.json:
            session.console.writer(1)(json.dumps(found).encode() + b"\n")
        elif name != "end":
            _print(found, arguments, session)
        end = found
    return exit_status(session, End(end.get("exit_code"), end.get("error"), str(end.get("status"))))


def _print(line: Mapping[str, Any], arguments: argparse.Namespace, session: Session) -> None:
    text = f"{line['timestamp']} {line['message']}" if arguments.timestamps else line["message"]
    session.console.writer(1 if line["stream"] == "stdout" else 2)(text.encode(errors="replace") + b"\n")
