"""A real nats-server for tests, on a port of its own choice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mags.kit.children import Child
from mags.kit.programs import find
from mags.protocol.subjects import MAX_PAYLOAD


@asynccontextmanager
async def nats_server(folder: Path, *, jetstream: bool = False, port: int = -1) -> AsyncIterator[str]:
    """Its URL. `folder` must exist; everything of it is there. `port` -1: any that is free."""
    config = folder / "nats.conf"
    store = f'jetstream {{ store_dir: "{folder / "jetstream"}" }}\n' if jetstream else ""
    config.write_text(
        f'listen: "127.0.0.1:{port}"\nports_file_dir: "{folder}"\n'
        f"max_payload: {MAX_PAYLOAD}\nmax_pending: 128MB\n{store}"
    )

    async def ready() -> bool:
        return bool(_urls(folder))

    child = Child("nats", [find("nats-server"), "-c", config], log_file=folder / "nats.log", ready=ready)
    await child.start()
    try:
        yield _urls(folder)[0]
    finally:
        await child.stop()


def _urls(folder: Path) -> list[str]:
    for path in folder.glob("nats-server_*.ports"):
        try:
            return [str(url) for url in json.loads(path.read_text())["nats"]]
        except (ValueError, KeyError):
            return []
    return []
