"""Grow a workspace's disk; its files stay. A disk can't shrink."""

from __future__ import annotations

import argparse

from mags.cli.command import Session, add_json
from mags.sdk.calls import workspaces


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workspace")
    parser.add_argument("disk", type=int, metavar="GB", help="the new size")
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    workspace = session.sender.send(workspaces.resize_workspace(arguments.workspace, arguments.disk))
    if arguments.json:
        session.console.json(workspace)
    else:
        session.console.note(f"{arguments.workspace} has {arguments.disk} GB now.")
    return 0
