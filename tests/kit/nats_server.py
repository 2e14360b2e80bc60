"""A real nats-server for tests, on a port of its own choice."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mags.kit.children import Child
from mags.kit.programs import find
from mags.protocol.subjects import MAX_PAYLOAD

PATIENCE_S = 120.0


@asynccontextmanager
async def nats_server(folder: Path, *, jetstream: bool = False, port: int = -1) -> AsyncIterator[str]:
    """Its URL. `folder` must exist; everything of it is there. `port` -1: any that is free."""

    async def ready() -> bool:
        return bool(_urls(folder))

    command = _command(folder, port, jetstream=jetstream)
    child = Child("nats", command, log_file=folder / "nats.log", ready=ready)
    await child.start()
    try:
        yield _urls(folder)[0]
    finally:
        await child.stop()


class NatsProgram:
    """The same, with JetStream, for tests that kill it and start it again: its port stays the same."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, -1
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    def start(self) -> None:
        for old in self._folder.glob("*.ports"):
            old.unlink()
        with (self._folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(_command(self._folder, self._port, jetstream=True), stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while not (urls := _urls(self._folder)):
            assert time.monotonic() < deadline, "nats-server does not start"
            time.sleep(0.01)
        self._port = int(urls[0].rpartition(":")[2])

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _command(folder: Path, port: int, *, jetstream: bool) -> list[str | Path]:
    config = folder / "nats.conf"
    store = f'jetstream {{ store_dir: "{folder / "jetstream"}" }}\n' if jetstream else ""
    config.write_text(
        f'listen: "127.0.0.1:{port}"\nports_file_dir: "{folder}"\n'
        f"max_payload: {MAX_PAYLOAD}\nmax_pending: 128MB\n{store}"
    )
    return [find("nats-server"), "-c", config]


def _urls(folder: Path) -> list[str]:
    """Where it listens, once it does."""
    for path in folder.glob("nats-server_*.ports"):
        try:
            return [str(url) for url in json.loads(path.read_text())["nats"]]
        except (ValueError, KeyError):
            return []
    return []
