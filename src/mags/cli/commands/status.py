"""Say how a job is; without a name, how the server is."""

from __future__ import annotations

import argparse

from mags.cli.command import MISUSED, Refused, Session, add_json
from mags.cli.times import duration, since
from mags.sdk.calls import account, jobs


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", nargs="?", help="request id, name or workspace")
    parser.add_argument("--server", action="store_true", help="the server instead: exit status 0 when it is up")
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    if arguments.server or arguments.job is None:
        if arguments.server and arguments.job:
            raise Refused("Give a job or --server, not both.", MISUSED)
        return _server(arguments, session)
    if arguments.json:
        session.console.json(session.sender.send(jobs.status(arguments.job)))
        return 0
    job = session.sender.send(jobs.get_job(arguments.job))
    session.console.record(
        {
            "job": job["request_id"],
            "name": job["name"],
            "status": job["status"],
            "its VM": job.get("vm_reason"),
            "removed": since(job.get("removed_at")),
            "error": job["error"],
            "exit code": job["exit_code"],
            "workspace": job["workspace_id"],
            "url": job["url"],
            "host": job["host_id"],
            "vm": job["vm_id"],
            "persistent": job["persistent"] or None,
            "never sleeps": job["no_sleep"] or None,
            "startup command": job["startup_command"],
            "created": since(job["created_at"]),
            "waited": duration(job["queue_ms"]),
            "VM up in": duration(job["boot_ms"]),
            "script took": duration(job["script_duration_ms"]),
            "in all": duration(job["total_duration_ms"]),
            "VM from": job["start_kind"],
        }
    )
    return 0


def _server(arguments: argparse.Namespace, session: Session) -> int:
    health = session.sender.send(account.health())
    if arguments.json:
        session.console.json(health)
    else:
        session.console.record({"server": session.settings.api_url, **health})
    return 0
