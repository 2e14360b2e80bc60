"""Stop the server of this machine. VMs that are to stay are put to sleep, others end.

mags down              nothing runs any more; `mags up` goes on with workspaces and sleeping VMs
mags down --purge      remove the server with all its data
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mags.cli.command import MISUSED, Refused, Session

if TYPE_CHECKING:
    from mags.supervisor.config import Settings
    from mags.supervisor.layout import Layout

LOCAL = True


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", help="which one (default /var/lib/mags)")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--keep-vms", action="store_true", help="leave the VMs running for the next `mags up`")
    ways.add_argument("--force", action="store_true", help="end VMs as they are, without saving their memory first")
    ways.add_argument(
        "--purge",
        action="store_true",
        help="also remove the data directory: records, images, VMs, and the workspaces that are in it",
    )
    parser.add_argument("--yes", action="store_true", help="don't ask before --purge")


def run(arguments: argparse.Namespace, session: Session) -> int:
    from mags.cli.commands.up import read_settings
    from mags.supervisor.layout import Layout
    from mags.supervisor.shutdown import NotDown, shut_down

    settings = read_settings(arguments)
    layout = Layout(settings.data_dir)
    at_once = arguments.force or arguments.purge
    try:
        if arguments.purge and not _agreed(arguments, session, layout):
            session.console.note("Nothing was done.")
            return 0
        was_up = shut_down(layout, keep_vms=arguments.keep_vms or at_once)
        if not arguments.keep_vms:
            was_up |= _clear(settings, session, at_once=at_once)
    except NotDown as error:
        raise Refused(str(error)) from error
    except PermissionError as error:
        raise Refused(f"{error.filename or layout.data} belongs to another user. Run `sudo mags down`.") from error
    session.console.note("Mags is down." if was_up else f"Mags was not up (in {layout.data}).")
    if arguments.purge:
        _remove(session, layout)
    return 0


def _agreed(arguments: argparse.Namespace, session: Session, layout: Layout) -> bool:
    from mags.supervisor.clearing import is_installation

    if not is_installation(layout):
        raise Refused(f"There is no installation in {layout.data}.")
    if arguments.yes:
        return True
    question = f"Remove {layout.data} with every record, image, VM and workspace in it?"
    if not session.console.interactive:
        raise Refused(f"{question} Say --yes to do it.", MISUSED)
    return session.console.confirm(question)


def _clear(settings: Settings, session: Session, *, at_once: bool) -> bool:
    """End what a killed `mags up` had left, and what is in the kernel of VMs that sleep. Whether anything ran."""
    import asyncio

    from mags.supervisor import clearing
    from mags.supervisor.lock import AlreadyUp

    try:
        return asyncio.run(clearing.after_the_end(settings, note=session.console.note, at_once=at_once))
    except (clearing.NotCleared, AlreadyUp) as error:
        raise Refused(str(error)) from error


def _remove(session: Session, layout: Layout) -> None:
    from mags.supervisor import client_config
    from mags.supervisor.clearing import remove_data
    from mags.supervisor.config import inherited_environment

    try:
        token = layout.bootstrap_token.read_text().strip()
    except FileNotFoundError:
        token = ""
    client_config.forget(token, environment=inherited_environment())
    left = remove_data(layout)
    session.console.note(f"{layout.data} is removed." if not left else f"What is not ours stays: {left[0]}.")
