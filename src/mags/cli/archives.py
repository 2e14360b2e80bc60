"""Workspaces as archives, streamed from and to the server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mags.cli.command import Refused
from mags.cli.times import size
from mags.sdk.calls import workspaces
from mags.sdk.uploads import whole

if TYPE_CHECKING:
    from mags.cli.command import Session

CHUNK = 1 << 20


def export(session: Session, workspace: str, file: str) -> None:
    """Write the archive; a file appears under its name only when it is whole."""
    with session.sender.open(workspaces.export_workspace(workspace)) as exchange:
        if file == "-":
            for chunk in session.sender.body(exchange):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        target = Path(file)
        try:
            with whole(target) as output:
                for chunk in session.sender.body(exchange):
                    output.write(chunk)
        except OSError as error:
            raise Refused(f"{target} can't be written: {error.strerror}.") from error
    session.console.note(f"{workspace} is in {target} ({size(target.stat().st_size)}).")


def bring(session: Session, workspace: str, file: str, disk_gb: int | None) -> None:
    """Make the workspace from the archive."""

    def chunks() -> Iterator[bytes]:
        if file == "-":
            while chunk := sys.stdin.buffer.read(CHUNK):
                yield chunk
            return
        with Path(file).open("rb") as archive:
            while chunk := archive.read(CHUNK):
                yield chunk

    if file != "-" and not Path(file).is_file():
        raise Refused(f"There is no file {file}.")
    session.sender.send(workspaces.import_workspace(workspace, chunks, disk_gb=disk_gb, single=file == "-"))
    session.console.note(f"{workspace} is there. Next: mags run -w {workspace} 'ls'")
