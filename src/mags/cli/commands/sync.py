"""Save a workspace now; done when it is in the object store."""

from __future__ import annotations

import argparse

from mags.cli.command import Session, add_json
from mags.cli.times import duration, size
from mags.sdk.calls import jobs


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", help="request id, name or workspace")
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    synced = session.sender.send(jobs.sync(arguments.job))
    if arguments.json:
        session.console.json(synced)
    else:
        took = duration(synced.get("duration_ms"))
        session.console.note(f"{arguments.job} is saved: {size(synced.get('bytes'))} in {took}.")
    return 0
