"""What this host says of itself, every 2 s and at once when it begins or ceases to take VMs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client

import mags
from mags.host.attachments import Attachments
from mags.host.config import Settings
from mags.host.machines.capacity import Capacity
from mags.host.machines.fleet import Fleet
from mags.host.machines.pool import Pool
from mags.host.vmm.driver import Vmm
from mags.kit.machine import machine_id
from mags.protocol import subjects
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from mags.protocol.messages import Heard, Presence, decode, encode
from mags.protocol.states import VmState

log = logging.getLogger(__name__)

EVERY_S = 2.0
ANSWER_S = 1.0
LOOK_S = 0.5
"""How often it is looked whether there is still room."""


class Herald:
    """`images` names the images that are here."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        vmm: Vmm,
        fleet: Fleet,
        pool: Pool,
        capacity: Capacity,
        images: Callable[[], list[str]],
        attachments: Attachments,
    ) -> None:
        self._client, self._settings, self._vmm = client, settings, vmm
        self._fleet, self._pool, self._capacity = fleet, pool, capacity
        self._images, self._attachments = images, attachments
        self._boot = new_id()
        self._machine_id = machine_id()

    async def run(self) -> None:
        """For ever."""
        accepting: bool | None = None
        quiet = 0.0
        async with asyncio.TaskGroup() as tasks:
            while True:
                now = self._capacity.verdict().accepting
                if quiet >= EVERY_S or now != accepting:
                    tasks.create_task(self._say(self.describe()))
                    accepting, quiet = now, 0.0
                await asyncio.sleep(LOOK_S)
                quiet += LOOK_S

    async def _say(self, presence: Presence) -> None:
        if not self._client.is_connected:
            return  # what would be said when it is back is old by then
        hearing = self._attachments.hearing
        said_at = hearing.clock()
        try:
            answer = await self._client.request(
                subjects.presence(self._settings.host_id), encode(presence), timeout=ANSWER_S
            )
            hearing.heard(said_at, decode(answer.data, Heard).lost_after_s)
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError, TimeoutError):
            pass  # no control is there
        except (nats.errors.Error, Problem) as error:
            log.warning("can't say that we are here: %s", error)

    def describe(self) -> Presence:
        measure = self._capacity.measure()
        verdict = self._capacity.verdict(measure)
        states = self._fleet.count()
        return Presence(
            host_id=self._settings.host_id,
            machine_id=self._machine_id,
            version=mags.__version__,
            boot=self._boot,
            accelerator=self._vmm.accelerator,
            cpus=measure.cpus,
            memory_mb=measure.memory_mb,
            free_memory_mb=measure.free_memory_mb,
            free_disk_gb=round(measure.free_disk_gb, 2),
            load=round(measure.load, 2),
            accepting=verdict.accepting,
            reason=verdict.reason,
            idle_vms=self._pool.waiting,
            busy_vms=sum(states[state] for state in (VmState.RESTORING, VmState.READY, VmState.RUNNING)),
            sleeping_vms=states[VmState.SLEEPING],
            parked_vms=states[VmState.PARKED],
            min_pool_size=self._pool.target,
            max_pool_size=self._pool.target,
            images=self._images(),
            storage=self._attachments.status,
            local_retention_s=self._settings.local_retention_s,
        )
