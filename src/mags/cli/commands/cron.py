"""Run scripts by the clock.

mags cron add nightly '0 3 * * *' 'tar c /root | wc -c' -w project
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mags.cli.command import Session, add_json
from mags.cli.scripts import read_environment, read_script
from mags.cli.times import since
from mags.sdk.calls import cron
from mags.sdk.calls.call import Call

if TYPE_CHECKING:
    from mags.sdk.types import CronJob


def describe(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add = verbs.add_parser("add", help="add one")
    add.add_argument("name")
    add.add_argument("when", help="five fields (minute hour day month weekday), or @hourly, @daily, ...")
    add.add_argument("script", help="the script, @FILE, or - for stdin")
    add.add_argument("-w", "--workspace", metavar="NAME", help="run it in this workspace")
    add.add_argument("-p", "--persistent", action="store_true", help="keep the VM when the script has ended")
    add.add_argument("--env", action="append", default=[], metavar="K=V", help="set an environment variable")
    add.add_argument("--timezone", metavar="ZONE", help="such as Europe/Berlin (default UTC)")
    add.add_argument("--disabled", action="store_true", help="don't run it yet")
    add_json(add)
    add_json(verbs.add_parser("list", help="list them"))
    for verb, help_ in (("show", "say everything about one"), ("run", "run one now")):
        one = verbs.add_parser(verb, help=help_)
        one.add_argument("job", help="name or id")
        add_json(one)
    for verb, help_ in (("enable", "run it by the clock again"), ("disable", "pause it"), ("remove", "remove it")):
        verbs.add_parser(verb, help=help_).add_argument("job", help="name or id")


def run(arguments: argparse.Namespace, session: Session) -> int:
    console = session.console
    match arguments.verb:
        case "add":
            made = session.sender.send(_creation(arguments))
            if arguments.json:
                console.json(made)
            else:
                console.note(f"{made['name']} runs next {since(made['next_run_at']) or 'when it is enabled'}.")
        case "list":
            _list(arguments, session)
        case "show":
            found = session.sender.send(cron.cron_get(arguments.job))
            console.json(found) if arguments.json else console.record(dict(found))
        case "run":
            accepted = session.sender.send(cron.cron_run(arguments.job))
            console.json(accepted) if arguments.json else console.out(accepted["request_id"])
        case "remove":
            session.sender.send(cron.cron_delete(arguments.job))
            console.note(f"{arguments.job} is removed.")
        case verb:
            found = session.sender.send(cron.cron_update(arguments.job, enabled=verb == "enable"))
            console.note(f"{found['name']} is {verb}d.")
    return 0


def _creation(arguments: argparse.Namespace) -> Call[CronJob]:
    return cron.cron_create(
        name=arguments.name,
        cron_expression=arguments.when,
        script=read_script(arguments.script),
        workspace_id=arguments.workspace,
        environment=read_environment(arguments.env),
        persistent=arguments.persistent,
        enabled=not arguments.disabled,
        timezone=arguments.timezone,
    )


def _list(arguments: argparse.Namespace, session: Session) -> None:
    found = session.sender.send(cron.cron_list())
    if arguments.json:
        session.console.json(found)
        return
    rows = [
        (
            job["name"],
            job["cron_expression"],
            job["timezone"],
            job["workspace_id"],
            since(job["next_run_at"]) if job["enabled"] else "disabled",
            since(job["last_run_at"]) or "never",
            job["last_status"],
            job["run_count"],
        )
        for job in found["cron_jobs"]
    ]
    heads = ("NAME", "WHEN", "ZONE", "WORKSPACE", "NEXT", "LAST", "STATUS", "RUNS")
    session.console.table(heads, rows, nothing="No cron jobs. Add one: mags cron add NAME '@hourly' 'echo hello'")
