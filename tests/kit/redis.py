"""A Redis server of one's own that keeps what it is told, on a free port, gone afterwards."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kit import sessions

DEADLINE = 60.0


class Redis:
    """`url` is that of a database, behind a password."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://:secret@127.0.0.1:{self.port}/1"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "redis-server is not installed: apt-get install redis-server"
        words = [program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        words += ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
        words += ["--requirepass", "secret", "--save", ""]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        deadline = time.monotonic() + DEADLINE
        while not self._serves():
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.02)

    def _serves(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"AUTH secret\r\nPING\r\n")
                return b"PONG" in connection.recv(100)
        except OSError:
            return False

    def stop(self) -> None:
        """At once, as in a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def redis() -> Iterator[Redis]:
    """A server that runs for the time of the block."""
    with sessions.folder() as folder:
        server = Redis(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
