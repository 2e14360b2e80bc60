"""Copy files into and out of a VM; directories too.

mags cp report.csv dev:/root/      into it
mags cp dev:/var/log logs          out of it
mags cp - dev:/tmp/x < x           from stdin, or to stdout
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mags.cli import copying
from mags.cli.command import MISUSED, Refused, Session


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="+", help="a local path, or NAME:PATH")
    parser.add_argument("target", help="likewise; one of both is in a VM")


def run(arguments: argparse.Namespace, session: Session) -> int:
    sources = [copying.parse(word) for word in arguments.source]
    target = copying.parse(arguments.target)
    if target.vm is not None and all(source.vm is None for source in sources):
        for source in sources:
            _into(session, source.path, target, several=len(sources) > 1)
    elif target.vm is None and all(source.vm is not None for source in sources):
        for source in sources:
            _out_of(session, source, target.path, several=len(sources) > 1)
    else:
        raise Refused("One side is a VM: mags cp FILE NAME:PATH, or mags cp NAME:PATH FILE.", MISUSED)
    return 0


def _into(session: Session, source: str, target: copying.Place, *, several: bool) -> None:
    path = Path(source)
    if source != "-" and not path.exists():
        raise Refused(f"There is no {source} here.")
    remote = copying.absolute(target.path)
    assert target.vm is not None
    if source != "-":
        name = path.name or path.resolve().name
        if (
            several
            or target.path.endswith("/")
            or target.path == ""
            or copying.is_directory(session, target.vm, remote)
        ):
            remote = copying.join(remote, name)
    if source != "-" and path.is_dir():
        copying.send_directory(session, path, target.vm, remote)
    else:
        copying.send_file(session, None if source == "-" else path, target.vm, remote)


def _out_of(session: Session, source: copying.Place, target: str, *, several: bool) -> None:
    remote = copying.absolute(source.path)
    assert source.vm is not None
    if target == "-":
        copying.receive_file(session, source.vm, remote, sys.stdout.buffer)
        return
    path = Path(target)
    name = remote.rstrip("/").rpartition("/")[2] or "root"
    if path.is_dir():
        path = path / name
    elif several or target.endswith(("/", os.sep)):
        raise Refused(f"There is no directory {target}.")
    if copying.is_directory(session, source.vm, remote):
        copying.receive_directory(session, source.vm, remote, path)
    else:
        copying.receive_to(session, source.vm, remote, path)
