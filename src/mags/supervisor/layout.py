"""Where things lie in the data directory of an installation.

cache/            images, the kernel
host/             templates and VMs
nats/             streams
seaweedfs/        the object store of `mags up --s3 seaweedfs`
edge/             the SSH host key, certificates
control.db        records
log/              one log for each program
run/              sockets, the lock, what runs now (up.json)
bootstrap-token   the first user's API token
nats-users.json   passwords of the programs
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

SOCKET_ROOM = 72
"""Bytes that a program may add to the directory of its sockets; a socket's path has at most 107 (unix(7))."""


class Layout:
    def __init__(self, data: Path) -> None:
        self.data = data
        self.cache, self.host, self.nats = data / "cache", data / "host", data / "nats"
        self.edge, self.log, self.run = data / "edge", data / "log", data / "run"
        self.seaweedfs = data / "seaweedfs"
        self.volume = self.host / "storage" / "formatted"
        """The host's note of the volume that it has (mags.host.storage.engine)."""
        self.database = data / "control.db"
        self.bootstrap_token, self.nats_users = data / "bootstrap-token", data / "nats-users.json"
        self.nats_config = self.run / "nats.conf"
        self.lock, self.record = self.run / "up.lock", self.run / "up.json"

    @property
    def id(self) -> str:
        """Tells the installations of one machine apart."""
        return hashlib.sha256(os.fsencode(self.data)).hexdigest()[:8]

    @property
    def sockets(self) -> Path:
        """A directory with a short path: in the data directory if that is short itself."""
        if len(os.fsencode(self.run)) + SOCKET_ROOM <= 107:
            return self.run
        base = Path("/run") if os.geteuid() == 0 else Path("/tmp")
        return base / f"mags-{os.geteuid()}-{self.id}"

    @property
    def everything(self) -> list[Path]:
        """All that we and our programs make in the data directory."""
        directories = [self.cache, self.host, self.nats, self.edge, self.log, self.run, self.seaweedfs]
        databases = self.data.glob(f"{self.database.name}*")  # with its log and locks
        return [*directories, *databases, self.bootstrap_token, self.nats_users]

    def pid_file(self, program: str) -> Path:
        """Names the program while it runs."""
        return self.run / f"{program}.pid"

    def make(self) -> None:
        """The supervisor's own directories, for their owner only. PermissionError when we may not."""
        try:
            self.data.mkdir(mode=0o755, parents=True, exist_ok=True)
            for directory in (self.nats, self.edge, self.log, self.run, self.sockets):
                directory.mkdir(mode=0o700, exist_ok=True)
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            raise PermissionError(
                f"{error.filename} can't be made ({error.strerror}). Run as root, or choose a place with --data-dir."
            ) from error
        if self.sockets.stat().st_uid != os.geteuid():
            raise PermissionError(f"{self.sockets} belongs to somebody else. Remove it.")
