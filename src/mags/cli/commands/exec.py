"""Run a command in a VM that is there (a sleeping one wakes); the exit status is the command's.

mags exec dev 'ls | wc -l'       one word is a shell script
mags exec dev ls -l /root        several words are run as they are
mags exec -it dev                a shell on a terminal
"""

from __future__ import annotations

import argparse
import os

from mags.cli.command import Session
from mags.cli.scripts import read_environment

PLATFORM = True


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-i", "--interactive", action="store_true", help="pass stdin on")
    add("-t", "--tty", action="store_true", help="run it on a terminal")
    add("-e", "--env", action="append", default=[], metavar="K=V", help="set an environment variable (repeatable)")
    add("-C", "--workdir", metavar="DIR", help="where to run it (default /root)")
    add("-u", "--user", help="as whom (default root)")
    add("--timeout", type=float, metavar="SECONDS", help="kill it after so long (exit status 124)")
    add("job", help="request id, name or workspace")
    add("command", nargs=argparse.REMAINDER, help="the command (default: a shell)")


def run(arguments: argparse.Namespace, session: Session) -> int:
    from mags.cli.terminal import check_terminal, converse, window_size
    from mags.sdk.exec_protocol import start_message
    from mags.sdk.process import Process

    words = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if arguments.tty:
        check_terminal()
    start = start_message(
        None if not words else words[0] if len(words) == 1 else words,
        pty=window_size() if arguments.tty else None,
        term=os.environ.get("TERM") or "xterm",
        environment=read_environment(arguments.env),
        workdir=arguments.workdir,
        user=arguments.user,
        timeout=arguments.timeout,
    )
    with Process(session.settings, arguments.job, start) as process:
        return converse(process, session.console, stdin=arguments.interactive, terminal=arguments.tty)
