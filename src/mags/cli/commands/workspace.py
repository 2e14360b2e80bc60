"""List, delete, export and import workspaces."""

from __future__ import annotations

import argparse

from mags.cli.command import MISUSED, Refused, Session, add_json, add_paging, note_hidden
from mags.cli.times import since, size
from mags.sdk.calls import workspaces


def describe(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="list them, the last used first")
    add_paging(listing)
    add_json(listing)
    one = verbs.add_parser("show", help="say everything about one")
    one.add_argument("workspace")
    add_json(one)
    delete = verbs.add_parser("delete", help="delete one with all its files")
    delete.add_argument("workspace", nargs="+")
    delete.add_argument("-y", "--yes", action="store_true", help="don't ask")
    export = verbs.add_parser("export", help="write all of it to an archive")
    export.add_argument("workspace")
    export.add_argument("file", help="the archive to write, or - for stdout")
    bring = verbs.add_parser("import", help="make one from such an archive")
    bring.add_argument("workspace")
    bring.add_argument("file", help="the archive to read, or - for stdin")
    bring.add_argument("--disk", type=int, metavar="GB", help="size of its disk (default 2)")


def run(arguments: argparse.Namespace, session: Session) -> int:
    match arguments.verb:
        case "list":
            return _list(arguments, session)
        case "show":
            found = session.sender.send(workspaces.get_workspace(arguments.workspace))
            session.console.json(found) if arguments.json else session.console.record(dict(found))
        case "delete":
            return _delete(arguments, session)
        case "export":
            from mags.cli.archives import export

            export(session, arguments.workspace, arguments.file)
        case "import":
            from mags.cli.archives import bring

            bring(session, arguments.workspace, arguments.file, arguments.disk)
    return 0


def _list(arguments: argparse.Namespace, session: Session) -> int:
    found = session.sender.send(workspaces.list_workspaces(page=arguments.page, page_size=arguments.number))
    if arguments.json:
        session.console.json(found)
        return 0
    rows = [
        (
            workspace["workspace_id"],
            size(workspace["size_bytes"]),
            f"{workspace['disk_gb']} GB",
            since(workspace["last_used_at"]),
            since(workspace["last_synced_at"]) or "never",
            workspace["base_workspace_id"],
            workspace["job"],
        )
        for workspace in found["workspaces"]
    ]
    heads = ("WORKSPACE", "SIZE", "DISK", "USED", "SAVED", "BASE", "JOB")
    session.console.table(heads, rows, nothing="No workspaces. Make one: mags run -w NAME 'echo hello > file'")
    note_hidden(session.console, found, len(rows), "more")
    return 0


def _delete(arguments: argparse.Namespace, session: Session) -> int:
    for name in arguments.workspace:
        if not arguments.yes:
            if not session.console.interactive:
                raise Refused(f"Deleting {name} takes all its files. Say --yes to do it.", MISUSED)
            if not session.console.confirm(f"Delete {name} and all its files?"):
                session.console.note(f"{name} stays.")
                continue
        session.sender.send(workspaces.delete_workspace(name))
        session.console.note(f"{name} is deleted.")
    return 0
