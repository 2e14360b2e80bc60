"""End jobs and their VMs; a workspace is saved before."""

from __future__ import annotations

import argparse

from mags.cli.command import Session
from mags.sdk.calls import jobs


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", nargs="+", help="request id, name or workspace")


def run(arguments: argparse.Namespace, session: Session) -> int:
    for job in arguments.job:
        answer = session.sender.send(jobs.stop(job))
        session.console.note(answer.get("message") or f"{job} is stopped.")
    return 0
