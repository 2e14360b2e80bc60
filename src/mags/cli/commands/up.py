"""Start a server on this machine: the API, VMs, public URLs and SSH, all under one supervisor.

mags up        in the foreground; Ctrl-C ends it
mags up -d     in the background; `mags down` ends it
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from mags.cli.command import MISUSED, Refused, Session

if TYPE_CHECKING:
    from mags.supervisor.config import Settings

LOCAL = True


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="run in the background")
    add("--data-dir", metavar="DIR", help="where everything is kept (default /var/lib/mags)")
    add("--api", metavar="HOST:PORT", help="where the API listens (default 127.0.0.1:4280)")
    add("--apps", metavar="HOST:PORT", help="where public URLs are served (default 127.0.0.1:4281)")
    add("--ssh", metavar="HOST:PORT", help="where the SSH gateway listens (default 127.0.0.1:2222)")
    add("--nats", metavar="HOST:PORT", help="where NATS listens, for hosts on other machines (default: loopback)")
    add("--apps-domain", metavar="DOMAIN", help="public URLs are NAME.DOMAIN (default apps.localhost)")
    add(
        "--s3",
        choices=["local", "seaweedfs"],
        help="where workspaces' blocks go, for good (default: where they are; at first as MAGS_HOST_STORAGE_* says)",
    )
    add("--programs", metavar="LIST", help="what to start, of control,host,edge (default: all)")


def run(arguments: argparse.Namespace, session: Session) -> int:
    settings = read_settings(arguments)
    if "host" in settings.programs and os.geteuid() == 0:
        _prepare_image(settings, session)
    if arguments.detach:
        return _background(settings, session)
    return _foreground(settings, session)


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Flags, then MAGS_UP_*, then defaults."""
    from pydantic import ValidationError

    from mags.supervisor.config import Settings

    names = ("data_dir", "api", "apps", "ssh", "nats", "apps_domain", "s3", "programs")
    given: dict[str, Any] = {name: getattr(arguments, name, None) for name in names}
    if given["programs"] is not None:
        given["programs"] = tuple(word.strip() for word in given["programs"].split(",") if word.strip())
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise Refused(f"{'.'.join(map(str, first['loc'][:1])).replace('_', '-')}: {first['msg']}.", MISUSED) from error


def _prepare_image(settings: Settings, session: Session) -> None:
    import asyncio

    from mags.cli.local_images import ensure_pool_image
    from mags.host.images import ImageError
    from mags.kit.process import CommandError

    try:
        asyncio.run(ensure_pool_image(settings.data_dir, note=session.console.note))
    except (ImageError, CommandError, TimeoutError) as error:
        raise Refused(f"{error} Try `mags image build alpine`, or see `mags doctor`.") from error


def _background(settings: Settings, session: Session) -> int:
    from mags.supervisor import background, foreground

    try:
        url = background.launch(settings, note=session.console.note)
    except (background.NotStarted, *foreground.FAILURES) as error:
        raise Refused(str(error)) from error
    session.console.note(f"Mags is up at {url}. Stop it with `mags down`.")
    return 0


def _foreground(settings: Settings, session: Session) -> int:
    import asyncio

    from mags.supervisor import foreground

    def ready(url: str) -> None:
        session.console.note(f"Mags is up at {url}. Ctrl-C stops it.")

    foreground.log_to_terminal()
    try:
        asyncio.run(foreground.serve(settings, ready=ready, note=session.console.note))
    except foreground.FAILURES as error:
        raise Refused(str(error)) from error
    return 0
