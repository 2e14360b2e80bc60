"""Make a sandbox that stays: a VM with a name, for `exec`, `ssh`, `cp` and `url`.

mags new dev        its files live on its own disk
mags new dev -p     its files are kept in the object store
"""

from __future__ import annotations

import argparse

from mags.cli.command import Session, add_json
from mags.cli.sandboxes import make
from mags.cli.scripts import read_environment


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", help="its name")
    add("-p", "--persistent", action="store_true", help="keep its files in the object store")
    add("--base", metavar="WORKSPACE", help="start from a copy of this workspace")
    add("--env", action="append", default=[], metavar="K=V", help="set an environment variable (repeatable)")
    add("--no-sleep", action="store_true", help="never let it sleep")
    add("--startup-command", metavar="COMMAND", help="run when it comes up without its memory")
    add("--idle", type=int, metavar="SECONDS", help="let it sleep after so long without activity")
    add("--disk", type=int, metavar="GB", help="size of the disk (default 2)")
    add("--cpus", type=int, metavar="N", help="virtual CPUs (default 1)")
    add("--memory", type=int, metavar="MB", help="memory (default 512)")
    add("--image", help="the root file system (default: the workspace's, else the server's)")
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    job = make(
        session,
        arguments.name,
        synced=arguments.persistent,
        base_workspace_id=arguments.base,
        environment=read_environment(arguments.env),
        no_sleep=arguments.no_sleep,
        startup_command=arguments.startup_command,
        idle_timeout=arguments.idle,
        disk_gb=arguments.disk,
        vcpus=arguments.cpus,
        memory_mb=arguments.memory,
        image=arguments.image,
    )
    if arguments.json:
        session.console.json(job)
        return 0
    name = arguments.name
    session.console.note(f"{name} is up. Next: `mags ssh {name}`, `mags exec {name} COMMAND`, `mags stop {name}`.")
    return 0
