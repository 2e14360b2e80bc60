"""Say what was used."""

from __future__ import annotations

import argparse

from mags.cli.command import Session, add_json
from mags.cli.times import duration, size
from mags.sdk.calls import jobs


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=int, default=30, help="of the last so many days (default 30)")
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    usage = session.sender.send(jobs.usage(window_days=arguments.days))
    if arguments.json:
        session.console.json(usage)
        return 0
    session.console.record(
        {
            "days": usage["window_days"],
            "jobs": usage["total_jobs"],
            "completed": usage["completed_jobs"],
            "failed": usage["failed_jobs"],
            "running": usage["running_jobs"],
            "VM time": duration(usage["vm_seconds"] * 1000),
            "CPU time": duration(usage["cpu_seconds"] * 1000),
            "storage": size(usage["storage_bytes"]),
        }
    )
    return 0
