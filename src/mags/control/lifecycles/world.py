"""The parts that lifecycles and features work with, made once per process by `app`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from mags.control.config import Settings
from mags.control.db import Database
from mags.control.lifecycles.notices import Notices
from mags.hostclient import HostClient, Hosts
from mags.kit import tasks
from mags.kit.jumps import Jumps
from mags.protocol import edge, messages, subjects
from mags.protocol.messages import OutputEnd

log = logging.getLogger("mags.control")


@dataclass
class World:
    settings: Settings
    db: Database
    connection: Client
    jetstream: JetStreamContext
    hosts: Hosts
    client: HostClient
    notices: Notices = field(default_factory=Notices)
    kick: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to make the runner look for work now."""
    gates: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    leased: set[str] = field(default_factory=set)
    """Jobs whose steps this control is taking; the runner renews their leases."""
    refused: dict[str, float] = field(default_factory=dict)
    """Hosts that have just refused a VM, until when (monotonic seconds) they are not asked again."""
    clock: Jumps = field(default_factory=Jumps)
    _group: asyncio.TaskGroup | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _swept: float = 0.0

    def gate(self, host_id: str) -> asyncio.Semaphore:
        """Bounds the starts that are under way on one host; the rest wait their turn, in order."""
        gate = self.gates.get(host_id)
        if gate is None:
            gate = self.gates[host_id] = asyncio.Semaphore(self.settings.starts_per_host)
        return gate

    def swept(self) -> bool:
        """True once an hour, to whoever asks first."""
        moment = time.monotonic()
        if self._swept and moment - self._swept < 3600:
            return False
        self._swept = moment
        return True

    def own(self, group: asyncio.TaskGroup) -> None:
        """Give the world the task group that owns what it spawns."""
        self._group = group

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Run something beside the request; it ends with the process, and its errors are logged.

        Not when the process is ending: what the records say is taken up by the next one.
        """
        if self._group is None:
            work.close()
            return
        task = self._group.create_task(self._guard(work, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """End everything that was spawned; the records say where it goes on."""
        self._group = None
        await tasks.end(self._tasks)

    async def _guard(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("%s failed", name)

    async def publish_end(self, job_id: str, error: str | None, at_ms: int) -> None:
        """End a job's output on the platform's own behalf, so that nobody follows it for ever."""
        try:
            await self.jetstream.publish(
                subjects.output(job_id),
                messages.encode(OutputEnd(error=error, at_ms=at_ms)),
                headers={"Nats-Msg-Id": f"{job_id}-end-control"},
                timeout=5,
            )
        except (nats.errors.Error, OSError, TimeoutError) as problem:
            log.warning("the end of job %s could not be published: %s", job_id, problem)

    async def tell_edges(
        self, *, subdomains: Iterable[str] = (), vms: Iterable[str] = (), ports: Iterable[int] = ()
    ) -> None:
        """What edges remember of these is void. Lost messages only cost them the life of their memory (seconds)."""
        change = edge.Changed(subdomains=list(subdomains), vms=list(vms), ports=list(ports))
        if change.subdomains or change.vms or change.ports:
            try:
                await self.connection.publish(edge.CHANGED, messages.encode(change))
            except nats.errors.Error as problem:
                log.debug("edges were not told: %s", problem)
