"""A real control over real NATS in a thread beside the test; its VMs are local processes (tests.kit.scripted_host)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from mags import Mags
from tests.integration.control.conftest import TOKEN, installation
from tests.kit.installation import MAGS
from tests.kit.nats_server import nats_server

PATIENCE = 90.0


class Server(NamedTuple):
    url: str
    token: str
    folder: Path


async def _serve(folder: Path, started: Future[str], stop: asyncio.Event) -> None:
    (folder / "nats").mkdir()
    async with nats_server(folder / "nats", jetstream=True) as nats_url, installation(folder, nats_url) as made:
        await made.host()
        started.set_result(made.url)
        await stop.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("control")
    started: Future[str] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(_serve(folder, started, stop))
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise
        finally:
            loop.close()

    # asyncio reaps children by pidfd, which works in any thread.
    thread = threading.Thread(target=run, name="control")
    thread.start()
    try:
        yield Server(started.result(timeout=PATIENCE), TOKEN, folder)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=PATIENCE)


@pytest.fixture(scope="session")
def m(server: Server) -> Iterator[Mags]:
    with Mags(server.token, server.url, timeout=PATIENCE) as client:
        yield client


class Cli(Protocol):
    def __call__(self, *words: str, input: bytes = ..., status: int = ...) -> subprocess.CompletedProcess[bytes]: ...


@pytest.fixture
def environment(server: Server, tmp_path: Path) -> dict[str, str]:
    """Of a `mags` that knows the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAGS_API")}
    return kept | {
        "MAGS_API_URL": server.url,
        "MAGS_API_TOKEN": server.token,
        "MAGS_CONFIG": str(tmp_path / "home" / "config.json"),
        "NO_COLOR": "1",
        "HTTP_PROXY": "http://192.0.2.1:1",  # never used for a server on this machine
        "ALL_PROXY": "http://192.0.2.1:1",
    }


@pytest.fixture
def cli(environment: dict[str, str]) -> Cli:
    """Run `mags WORDS`; it must end with `status`."""

    def run(*words: str, input: bytes = b"", status: int = 0) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [MAGS, *words], env=environment, input=input, capture_output=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == status, (words, done.returncode, done.stdout[-500:], done.stderr[-1000:])
        return done

    return run


Until = Callable[[Callable[[], bool]], None]
