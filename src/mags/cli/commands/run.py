"""Run a script in a microVM of its own; its output comes as it happens, the exit status is the script's.

mags run 'echo Hello World'
mags run -w project @build.sh
mags run -p --url --port 8080 --image debian 'python3 -m http.server 8080'
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from mags.cli.command import MISUSED, Refused, Session, add_json
from mags.cli.output import exit_status, follow, interrupts_as_exceptions
from mags.cli.scripts import read_environment, read_script
from mags.sdk.calls import jobs
from mags.sdk.calls.call import Call
from mags.sdk.errors import MagsError

if TYPE_CHECKING:
    from mags.sdk.types import Accepted

PLATFORM = True
RECALL_TIMEOUT = 10.0
"""Seconds of a server's silence after which we give up to take back what it may have begun."""


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("script", nargs="+", help="the script, @FILE, or - for stdin")
    add("-w", "--workspace", metavar="NAME", help="keep the files in this workspace")
    add("-n", "--name", help="a name to find the job by")
    add("-p", "--persistent", action="store_true", help="keep the VM when the script has ended")
    add("--base", metavar="WORKSPACE", help="start from a copy of this workspace")
    add("-e", "--ephemeral", action="store_true", help="no workspace at all")
    add("-f", "--file", action="append", default=[], metavar="PATH", help="put this file into /root (repeatable)")
    add("--env", action="append", default=[], metavar="K=V", help="set an environment variable (repeatable)")
    add("--script-url", action="store_true", help="the script is a URL, fetched inside the VM")
    add("--url", action="store_true", help="open the VM's port to the web, and print the URL")
    add("--port", type=int, help="the port for --url (default 8080)")
    add("--no-sleep", action="store_true", help="never let it sleep (needs -p)")
    add("--no-sync", action="store_true", help="the workspace lives on the VM's own disk only")
    add("--startup-command", metavar="COMMAND", help="run when the VM comes up without its memory")
    add("--idle", type=int, metavar="SECONDS", help="let it sleep after so long without activity")
    add("--disk", type=int, metavar="GB", help="size of the disk (default 2)")
    add("--cpus", type=int, metavar="N", help="virtual CPUs (default 1)")
    add("--memory", type=int, metavar="MB", help="memory (default 512)")
    add("--image", help="the root file system (default: the workspace's, else the server's)")
    add("--timeout", type=int, metavar="SECONDS", help="kill the script after so long (exit status 124)")
    add("-d", "--detach", action="store_true", help="print the request id and don't wait")
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    if arguments.json and not arguments.detach:
        raise Refused("--json is for --detach: stdout is the script's.", MISUSED)
    interrupts_as_exceptions()
    accepted = _submit(session, _submission(arguments, session))
    request_id = accepted["request_id"]
    for warning in accepted.get("warnings") or []:
        session.console.note(f"warning: {warning}")
    if arguments.detach:
        session.console.json(accepted) if arguments.json else session.console.out(request_id)
        return 0
    try:
        if arguments.url:
            _show_url(session, request_id)
        return exit_status(session, follow(session, request_id))
    except (KeyboardInterrupt, OSError):  # interrupted, or nobody takes the output any more
        _stop(session, request_id)
        raise


def _submit(session: Session, wish: Call[Accepted]) -> Accepted:
    wish = wish._replace(headers={"Idempotency-Key": os.urandom(16).hex()})
    try:
        return session.sender.send(wish)
    except KeyboardInterrupt:
        _recall(session, wish)
        raise


def _recall(session: Session, wish: Call[Accepted]) -> None:
    """Stop what an interrupted submission may have begun. The same key again: the answer says which job it is."""
    try:
        session.sender.close()
        accepted = session.sender.send(wish._replace(single=True, timeout=RECALL_TIMEOUT))
    except MagsError as error:
        if error.status_code is None:
            session.console.complain(f"{error} The job may have been submitted: see `mags list`.")
        return
    _stop(session, accepted["request_id"])


def _submission(arguments: argparse.Namespace, session: Session) -> Call[Accepted]:
    script = " ".join(arguments.script) if len(arguments.script) > 1 else read_script(arguments.script[0])
    if not script.strip():
        raise Refused("The script is empty. Say what to run, for instance: mags run 'echo hi'.", MISUSED)
    try:
        return jobs.run(
            script,
            type="url" if arguments.script_url else "inline",
            name=arguments.name,
            workspace_id=arguments.workspace,
            base_workspace_id=arguments.base,
            persistent=arguments.persistent,
            no_sleep=arguments.no_sleep,
            no_sync=arguments.no_sync,
            ephemeral=arguments.ephemeral,
            startup_command=arguments.startup_command,
            environment=read_environment(arguments.env),
            file_ids=_upload(arguments.file, session),
            disk_gb=arguments.disk,
            vcpus=arguments.cpus,
            memory_mb=arguments.memory,
            image=arguments.image,
            timeout=arguments.timeout,
            port=arguments.port,
            url=arguments.url,
            idle_timeout=arguments.idle,
        )
    except MagsError as error:
        if error.status_code is None and type(error) is MagsError:
            raise Refused(str(error), MISUSED) from error
        raise


def _upload(paths: list[str], session: Session) -> list[str]:
    if not paths:
        return []
    from mags.sdk.uploads import upload_call

    ids = []
    for path in paths:
        session.console.note(f"uploading {path}")
        ids.append(session.sender.send(upload_call(path))["file_id"])
    return ids


def _show_url(session: Session, request_id: str) -> None:
    url = session.sender.send(jobs.status(request_id)).get("url")
    session.console.note(f"open at {url}" if url else "The URL is not there yet: see `mags status`.")


def _stop(session: Session, request_id: str) -> None:
    session.console.note(f"stopping {request_id}")
    try:
        session.sender.close()  # the connection may be in the middle of an answer
        session.sender.send(jobs.stop(request_id))
    except MagsError as error:
        session.console.complain(f"{error} The job may still run: `mags stop {request_id}`.")
