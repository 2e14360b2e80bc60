"""The exports of a host: for each VM one directory, on a listener that only this VM reaches.

exports = await Exports.open(state)
export = await exports.add(vm_id, address, directory)    # the guest mounts gateway:PORT:/jfs
await exports.remove(vm_id)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mags.host.jfs.files import Files
from mags.host.jfs.permit import Ask, freely
from mags.host.jfs.procedures import PATH
from mags.host.jfs.server import Server
from mags.kit.files import write_atomic

T = TypeVar("T")
THREADS = 16
SWEEP_INTERVAL = 1.0
KEY_FILE = "jfs.key"
PORT_FILE = "jfs.port"


@dataclass(frozen=True, slots=True)
class Export:
    """Where a VM's /jfs is served: TCP `port` (NFS and MOUNT) of the address it was added with, path `path`."""

    port: int
    path: str = PATH.decode()
    handle: bytes = b""
    """Of its root, as MOUNT would give it; empty if that was not to be had when it was added."""


class Exports:
    """All exports of this host. Restart-safe: handles, which guests keep, are signed with a key in `state`, and the
    port stays, since the kernel leads a guest's connection on to where an earlier one of the same addresses went."""

    def __init__(self, key: bytes, port: int) -> None:
        self.port = port
        """Of every listener: what the network lets guests reach."""
        self._key = key
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="jfs")
        self._served: dict[str, tuple[Export, Files, Server, asyncio.Server]] = {}
        self._sweeper = asyncio.create_task(self._sweep(), name="jfs-sweep")

    @classmethod
    async def open(cls, state: Path, *, port: int = 0) -> Exports:
        """state: a private directory, for key and port. port: of every listener; 0: the last one if it is free."""
        file = state / KEY_FILE
        if not file.exists():
            write_atomic(file, os.urandom(32), durable=True)
        return cls(file.read_bytes(), port or _kept_port(state / PORT_FILE))

    async def add(self, vm_id: str, address: str, directory: Path, *, permit: Ask = freely) -> Export:
        """Serve `directory` to what connects to `address`. Repeatable. OSError if it cannot listen or open.

        permit: asked in a thread before each change.
        """
        if (served := self._served.get(vm_id)) is not None:
            return served[0]
        files, handle = await self._in_thread(lambda: _opened(Files(directory, self._key, vm_id, permit)))
        server = Server(files, self._in_thread)
        try:
            listener = await asyncio.start_server(server.connected, address, self.port)
        except BaseException:
            await self._in_thread(files.close)
            raise
        export = Export(self.port, handle=handle)
        self._served[vm_id] = export, files, server, listener
        return export

    async def remove(self, vm_id: str) -> None:
        """Store what is written and serve this VM no more. Idempotent."""
        if (served := self._served.pop(vm_id, None)) is None:
            return
        _, files, server, listener = served
        listener.close()
        await server.close()
        await self._in_thread(files.close)

    async def close(self) -> None:
        """Stop serving. Guests wait, and go on with the next program's exports."""
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        for vm_id in list(self._served):
            await self.remove(vm_id)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            for _, files, _, _ in list(self._served.values()):
                await self._in_thread(files.sweep)


def _opened(files: Files) -> tuple[Files, bytes]:
    """With the handle of its root."""
    try:
        return files, files.attempt(files.root)[0]
    except OSError:
        return files, b""  # the guest asks for it, for as long as it takes


def _kept_port(file: Path) -> int:
    """The port in the file if nobody has it now, or else another one, then kept there."""
    with contextlib.suppress(OSError, ValueError, OverflowError):
        return _free_port(int(file.read_text()))
    port = _free_port(0)
    write_atomic(file, str(port).encode())
    return port


def _free_port(wish: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("", wish))
        return int(probe.getsockname()[1])
