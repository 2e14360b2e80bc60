"""A PostgreSQL cluster of one's own, on a free port, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit import sessions

DEADLINE = 120.0


def program(name: str) -> str:
    """Debian keeps PostgreSQL's programs by version, not on PATH."""
    found = shutil.which(name)
    if found is not None:
        return found
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    assert versions, f"{name} is not installed: apt-get install postgresql"
    return str(versions[-1])


@dataclass
class Cluster:
    """url: SQLAlchemy's, of its database, as a superuser without a password, on loopback only."""

    url: str
    start: Callable[[], None]
    stop: Callable[[], None]
    """At once, as in a crash; connections are cut."""


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a cluster that runs for the time of the block."""
    with cluster() as running:
        yield running.url


@contextmanager
def cluster() -> Iterator[Cluster]:
    root = os.geteuid() == 0
    user = "postgres" if root else pwd.getpwuid(os.geteuid()).pw_name
    folder = sessions.new_folder()
    data, log = folder / "data", folder / "log"
    if root:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

    def run(*words: str) -> None:
        done = subprocess.run(
            words, user=user if root else None, cwd=folder, timeout=DEADLINE, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{log.read_text() if log.exists() else ''}"

    def start() -> None:
        run(program("pg_ctl"), "-D", str(data), "-l", str(log), "-w", "-t", "60", "-o", options, "start")

    def stop() -> None:
        run(program("pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")

    try:
        run(program("initdb"), "-D", str(data), "-A", "trust", "-U", user, "--no-sync", "-E", "UTF8", "--no-locale")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off -c max_connections=60"
        start()
        try:
            yield Cluster(f"postgresql+asyncpg://{user}@127.0.0.1:{port}/postgres", start, stop)
        finally:
            if (data / "postmaster.pid").exists():
                stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
