"""Show what a job wrote; with -f until its script has ended."""

from __future__ import annotations

import argparse

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
        return exit_status(session, follow(session, arguments.job))
    found = session.sender.send(jobs.logs(arguments.job, since=arguments.since, tail=arguments.tail))
    if arguments.json:
        session.console.json(found)
        return 0
    for line in found["logs"]:
        text = line["message"]
        if arguments.timestamps:
            text = f"{line['timestamp']} {text}"
        session.console.writer(1 if line["stream"] == "stdout" else 2)(text.encode(errors="replace") + b"\n")
    return 0
