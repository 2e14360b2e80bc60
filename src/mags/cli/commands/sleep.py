"""Save a VM's memory and free it. Its processes go on when it wakes."""

from __future__ import annotations

import argparse

from mags.cli.command import Session
from mags.sdk.calls import jobs


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", nargs="+", help="request id, name or workspace")


def run(arguments: argparse.Namespace, session: Session) -> int:
    for job in arguments.job:
        session.sender.send(jobs.sleep(job))
        session.console.note(f"{job} sleeps now. It wakes by itself when it is used.")
    return 0
