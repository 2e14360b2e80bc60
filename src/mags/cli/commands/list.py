"""List jobs, the newest first."""

from __future__ import annotations

import argparse

from mags.cli.command import Session, add_json, add_paging, note_hidden
from mags.cli.times import duration, since
from mags.sdk.calls import jobs


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--status", choices=["pending", "running", "sleeping", "completed", "error"])
    parser.add_argument("-w", "--workspace", metavar="NAME", help="only those of this workspace")
    add_paging(parser, number=20)
    parser.add_argument("-q", "--quiet", action="store_true", help="print request ids only")
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    found = session.sender.send(
        jobs.list_jobs(
            page=arguments.page, page_size=arguments.number, status=arguments.status, workspace_id=arguments.workspace
        )
    )
    if arguments.json:
        session.console.json(found)
        return 0
    if arguments.quiet:
        for job in found["jobs"]:
            session.console.out(job["request_id"])
        return 0
    rows = [
        (
            job["request_id"],
            job["name"],
            job["workspace_id"],
            job["status"],
            job["exit_code"],
            since(job["created_at"]),
            duration(job["script_duration_ms"]),
        )
        for job in found["jobs"]
    ]
    heads = ("JOB", "NAME", "WORKSPACE", "STATUS", "EXIT", "CREATED", "TOOK")
    session.console.table(heads, rows, nothing="No jobs yet. Run one: mags run 'echo Hello World'")
    note_hidden(session.console, found, len(rows), "older ones")
    return 0
