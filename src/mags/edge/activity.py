"""Telling hosts that connections into their VMs are open, so that they don't fall asleep."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Protocol

import nats.errors

from mags.protocol import edge, messages

log = logging.getLogger("mags.edge.activity")


class Publisher(Protocol):
    async def publish(self, subject: str, payload: bytes) -> None: ...


class Activity:
    """Counts open connections by VM. `run` publishes the counts, every `interval` seconds, until it is cancelled."""

    def __init__(self, nats: Publisher) -> None:
        self._nats = nats
        self._open: Counter[tuple[str, str]] = Counter()

    def opened(self, host_id: str, vm_id: str) -> None:
        self._open[host_id, vm_id] += 1

    def closed(self, host_id: str, vm_id: str) -> None:
        self._open[host_id, vm_id] -= 1
        if self._open[host_id, vm_id] <= 0:
            del self._open[host_id, vm_id]

    async def run(self, interval: float) -> None:
        while True:
            for (host_id, vm_id), connections in list(self._open.items()):
                value = edge.Activity(vm_id=vm_id, connections=connections)
                try:
                    await self._nats.publish(edge.activity(host_id, vm_id), messages.encode(value))
                except nats.errors.Error as error:  # away for long: the next one says as much
                    log.debug("activity is not told: %r", error)
            await asyncio.sleep(interval)
