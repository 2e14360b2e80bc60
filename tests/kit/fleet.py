"""Several hosts under one control, on this machine: each host a program with a data directory and a network of its own.

    with Fleet(meta_url, weed) as fleet:
        a, b = fleet.host("a"), fleet.host("b")
        fleet.mags.cli("run", "-w", "p", "echo hi")

Control, edge and NATS are `mags up --programs control,edge`. Workspaces are in S3, their metadata in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from mags.host import remains
from mags.host.storage.seaweedfs import SeaweedFS
from tests.kit.cache import share
from tests.kit.installation import Installation
from tests.kit.line import Line
from tests.kit.objectstore import cut
from tests.kit.postgres import postgres

PATIENCE_S = 120.0


def until(condition: Callable[[], object], words: str, *, timeout: float = PATIENCE_S) -> None:
    """Wait for something that a user of Mags can see."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {words}"
        time.sleep(0.1)


@contextmanager
def seaweedfs(directory: Path) -> Iterator[SeaweedFS]:
    """An object store, for tests without an event loop."""
    with asyncio.Runner() as runner:
        store = SeaweedFS(directory)
        runner.run(store.start())
        try:
            yield store
        finally:
            runner.run(cut(store))


@contextmanager
def metadata() -> Iterator[str]:
    """A metadata engine: the URL that JuiceFS takes."""
    with postgres() as url:
        parts = urlsplit(url)
        yield f"postgres://{parts.netloc}{parts.path}?sslmode=disable"


class HostProgram:
    """`python -m mags.host`, as on a machine of its own."""

    def __init__(self, host_id: str, data: Path, environment: dict[str, str], words: Sequence[str]) -> None:
        """words: Python's arguments."""
        self.host_id, self.data, self._words = host_id, data, words
        self.runtime = data / "net"
        self.environment = {
            **environment,
            "MAGS_HOST_HOST_ID": host_id,
            "MAGS_HOST_DATA_DIR": str(data),
            "MAGS_HOST_RUNTIME_DIR": str(self.runtime),
            "PYTHONUNBUFFERED": "1",
        }
        self.log = data / "host.log"
        self._program: subprocess.Popen[bytes] | None = None
        self._leaving = False
        share(data / "host")

    def start(self) -> None:
        self._leaving = False
        with self.log.open("ab") as log:
            self._program = subprocess.Popen(
                [sys.executable, *self._words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _send(self, number: int) -> None:
        assert self._program is not None
        self._program.send_signal(number)

    def freeze(self) -> None:
        """The program hears and says nothing more; its VMs run on."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def thaw_or_start(self) -> None:
        """It runs from now on, whatever was done to it."""
        assert self._program is not None
        if self._leaving:
            self._program.wait(timeout=PATIENCE_S)
        if self._program.poll() is not None:
            self.start()
        else:
            self.thaw()

    def end(self, number: int = signal.SIGTERM) -> None:
        """The program ends; its VMs run on."""
        if self._program is not None and self._program.poll() is None:
            self._send(number)
            self.thaw()
            self._program.wait(timeout=PATIENCE_S)

    def leave(self) -> subprocess.Popen[bytes]:
        """It is to be taken out of service: the program ends when all its VMs are put away."""
        self._send(signal.SIGUSR1)
        self._leaving = True
        assert self._program is not None
        return self._program

    def vms(self) -> list[int]:
        """Pids of its hypervisors."""
        return remains.hypervisors(self.data / "host")

    def perish(self) -> None:
        """As a machine that loses its power: the program, its VMs and its mounts are gone, its disk is not."""
        self.end(signal.SIGKILL)
        for pid in self.vms():
            os.kill(pid, signal.SIGKILL)
        asyncio.run(remains.clear(self.data / "host", self.runtime))


class Fleet:
    """`lost_s`: seconds of silence after which a host is lost. `environment` is added to that of the hosts."""

    def __init__(
        self, meta_url: str, store: SeaweedFS, *, lost_s: float = 30.0, environment: dict[str, str] | None = None
    ) -> None:
        self.mags = Installation(
            environment={
                "MAGS_CONTROL_HOST_LOST_S": str(lost_s),
                "MAGS_EDGE_MACHINE_ID": "0" * 32,  # as if the hosts were on other machines
            },
            flags=("--programs", "control,edge"),
        )
        self.hosts: dict[str, HostProgram] = {}
        self._storage = {
            "MAGS_HOST_STORAGE_KIND": "s3",
            "MAGS_HOST_STORAGE_META_URL": meta_url,
            "MAGS_HOST_STORAGE_ENDPOINT": store.endpoint,
            "MAGS_HOST_STORAGE_BUCKET": "fleet",
            "MAGS_HOST_STORAGE_ACCESS_KEY": store.access_key,
            "MAGS_HOST_STORAGE_SECRET_KEY": store.secret_key,
            "MAGS_HOST_POOL_TARGET": "0",
            "MAGS_HOST_STORAGE_SYNC_INTERVAL_S": "3600",  # what is synced, is synced for a reason
            **(environment or {}),
        }

    def __enter__(self) -> Fleet:
        self.mags.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for host in self.hosts.values():
                if kind is not None:
                    print(f"--- {host.host_id}\n{host.log.read_text(errors='replace')[-6000:]}")
                host.perish()
                shutil.rmtree(host.data, ignore_errors=True)
        finally:
            self.mags.__exit__(kind, error, trace)

    @property
    def nats(self) -> tuple[str, int]:
        """Where NATS listens."""
        host, _, port = json.loads((self.mags.data / "run" / "up.json").read_text())["nats"].rpartition(":")
        return host, int(port)

    def host(
        self, host_id: str, *, line: Line | None = None, words: Sequence[str] = ("-m", "mags.host")
    ) -> HostProgram:
        """A host that has joined, started if it is new. line: how it reaches NATS. words: Python's arguments."""
        if host_id not in self.hosts:
            password = json.loads((self.mags.data / "nats-users.json").read_text())["host"]
            address, port = self.nats if line is None else ("127.0.0.1", line.port)
            url = f"nats://host:{password}@{address}:{port}"
            environment = {**self.mags.environment, **self._storage, "MAGS_HOST_NATS_URL": url}
            self.hosts[host_id] = HostProgram(host_id, self.mags.folder / host_id, environment, words)
            self.hosts[host_id].start()
        until(lambda: self.view(host_id, "storage") == "ok", f"{host_id} has joined, with its storage")
        return self.hosts[host_id]

    def view(self, host_id: str, field: str) -> object:
        """What `mags pool` says of a host; None when it was never heard of."""
        for host in self.mags.json("pool")["hosts"]:
            if host["host_id"] == host_id and host["status"] == "live":
                return host[field]
        return None
