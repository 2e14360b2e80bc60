"""Starts the broker again when its disk was full and has room now.

A stream of nats-server (2.15) that could not be written once refuses everything until its next start. It says so in its
log, at every message, and at a monitoring port, which ours does not have.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from mags.kit.children import Child

log = logging.getLogger("mags.broker")

REFUSED = b"JetStream failed to store a msg"
LOOK_S = 2.0
REST_S = 20.0
"""Between two starts: what its disk refuses for another reason is not mended by starting it again and again."""
ROOM = 64 << 20
"""Bytes with which it is worth while."""
READ = 1 << 20


class BrokerDisk:
    """Of one broker. store: the directory of its streams."""

    def __init__(self, child: Child, store: Path) -> None:
        self._child, self._store = child, store
        self._read = self._size()

    async def watch(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._refuses() and shutil.disk_usage(self._store).free >= ROOM and self._child.pid is not None:
                log.warning("nats-server could not write and has room now: it is started again")
                with suppress(ProcessLookupError):
                    os.kill(self._child.pid, signal.SIGTERM)
                await asyncio.sleep(REST_S)
                self._read = self._size()

    def _refuses(self) -> bool:
        """Whether it has said so since the last look."""
        try:
            with self._child.log_file.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(min(self._read, size), size - READ))
                self._read = size
                return REFUSED in file.read(READ)
        except OSError:
            return False

    def _size(self) -> int:
        try:
            return self._child.log_file.stat().st_size
        except OSError:
            return 0
