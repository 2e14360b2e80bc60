"""Stop the server of this machine. VMs that are to stay are put to sleep, others end."""

from __future__ import annotations

import argparse

from mags.cli.command import Refused, Session

LOCAL = True


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", help="which one (default /var/lib/mags)")
    parser.add_argument("--keep-vms", action="store_true", help="leave the VMs running for the next `mags up`")


def run(arguments: argparse.Namespace, session: Session) -> int:
    from mags.cli.commands.up import read_settings
    from mags.supervisor.layout import Layout
    from mags.supervisor.shutdown import NotDown, shut_down

    layout = Layout(read_settings(arguments).data_dir)
    try:
        was_up = shut_down(layout, keep_vms=arguments.keep_vms)
    except (NotDown, PermissionError) as error:
        raise Refused(str(error)) from error
    session.console.note("Mags is down." if was_up else f"Mags was not up (in {layout.data}).")
    return 0
