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
    """Counts open connections by VM. `run` publishes the counts until it is cancelled."""

    def __init__(self, nats: Publisher, instance: str) -> None:
        self._nats, self._instance = nats, instance
        self._open: Counter[tuple[str, str]] = Counter()
        self._news: set[tuple[str, str]] = set()
        self._stirred = asyncio.Event()

    def opened(self, host_id: str, vm_id: str) -> None:
        """The first one is told at once: the VM may be about to fall asleep."""
        key = (host_id, vm_id)
        self._open[key] += 1
        if self._open[key] == 1:
            self._news.add(key)
            self._stirred.set()

    def closed(self, host_id: str, vm_id: str) -> None:
        self._open[host_id, vm_id] -= 1
        if self._open[host_id, vm_id] <= 0:
            del self._open[host_id, vm_id]

    async def run(self, interval: float) -> None:
        """`interval`: seconds between two messages about one VM."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._stirred.clear()
            keys, self._news = self._news, set()
            if loop.time() >= due:
                keys, due = set(self._open), loop.time() + interval
            for key in keys:
                await self._tell(*key)
            try:
                async with asyncio.timeout_at(due):
                    await self._stirred.wait()
            except TimeoutError:
                pass

    async def _tell(self, host_id: str, vm_id: str) -> None:
        connections = self._open[host_id, vm_id]
        if connections <= 0:
            return
        value = edge.Activity(vm_id=vm_id, connections=connections, edge=self._instance)
        try:
            await self._nats.publish(edge.activity(host_id, vm_id), messages.encode(value))
        except nats.errors.Error as error:  # away for long: the next one says as much
            log.debug("activity is not told: %r", error)
