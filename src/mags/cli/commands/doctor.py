"""Check what a server needs on this machine, and say what to do."""

from __future__ import annotations

import argparse

from mags.cli.command import FAILED, Session, add_json

LOCAL = True
MARKS = {True: ("ok", "32"), None: ("note", "33"), False: ("bad", "31")}


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", help="where everything is kept (default /var/lib/mags)")
    add_json(parser)


def run(arguments: argparse.Namespace, session: Session) -> int:
    import asyncio

    from mags.cli.commands.up import read_settings
    from mags.host.checks import Subject, examine
    from mags.host.config import Settings as HostSettings
    from mags.supervisor.layout import Layout
    from mags.supervisor.lock import read_record

    settings, host = read_settings(arguments), HostSettings()
    running = read_record(Layout(settings.data_dir)) is not None
    ports = {settings.api: "the API", settings.apps: "public URLs", settings.ssh: "SSH"}
    subject = Subject(
        settings.data_dir,
        subnet=host.subnet,
        ports={} if running else ports,
        memory_mb=host.pool_memory_mb,
        memory_reserve_mb=host.memory_reserve_mb,
        disk_reserve_gb=host.disk_reserve_gb,
        running=running,
    )
    checks = asyncio.run(examine(subject))
    console = session.console
    if arguments.json:
        console.json(
            [{"name": c.name, "ok": c.ok, "detail": c.detail, "advice": c.advice} for c in checks],
        )
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            word, colour = MARKS[check.ok]
            console.out(f"{console.paint_result(f'{word:<4}', colour)}  {check.name:<{width}}  {check.detail}")
            if check.advice:
                console.out(f"{'':<{width + 8}}-> {check.advice}")
    bad = [check.name for check in checks if check.ok is False]
    if bad:
        console.note(f"A server can't run here until this is put right: {', '.join(bad)}.")
        return FAILED
    console.note("A server can run here: `mags up`.")
    return 0
