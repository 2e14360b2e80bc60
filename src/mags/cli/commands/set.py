"""Change how a VM sleeps and wakes, and what it is called."""

from __future__ import annotations

import argparse

from mags.cli.command import MISUSED, Refused, Session, add_json
from mags.sdk.calls import jobs


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", help="request id, name or workspace")
    sleep = parser.add_mutually_exclusive_group()
    sleep.add_argument("--no-sleep", action="store_true", help="never let it sleep")
    sleep.add_argument("--sleep", action="store_true", help="let it sleep when idle")
    parser.add_argument("--idle", type=int, metavar="SECONDS", help="let it sleep after so long without activity")
    parser.add_argument("--startup-command", metavar="COMMAND", help="run when it comes up without its memory")
    parser.add_argument("--name", help="another name")
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    no_sleep = True if arguments.no_sleep else False if arguments.sleep else None
    wish = {
        "no_sleep": no_sleep,
        "idle_timeout": arguments.idle,
        "startup_command": arguments.startup_command,
        "name": arguments.name,
    }
    if all(value is None for value in wish.values()):
        raise Refused("Say what to change: --no-sleep, --sleep, --idle, --startup-command or --name.", MISUSED)
    job = session.sender.send(jobs.update_job(arguments.job, **wish))
    if arguments.json:
        session.console.json(job)
    else:
        session.console.note(f"{arguments.job} is changed.")
    return 0
