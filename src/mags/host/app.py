"""The host program: NATS, networks, hypervisor, pool and machines, put together and run until it is told to stop.

Ending it leaves the VMs that run something as they are: the next one goes on with them. The pool's are ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from mags.host import remains
from mags.host.attachments import Attachments
from mags.host.config import Settings
from mags.host.guest import Builtin, Channel, Exec
from mags.host.images import ImageStore, agent_path
from mags.host.isolation import Cgroups, UidPool
from mags.host.machines import welcome
from mags.host.machines.capacity import Capacity, Memory, meminfo
from mags.host.machines.cells import Cells
from mags.host.machines.claim import claim
from mags.host.machines.departure import depart
from mags.host.machines.events import Events
from mags.host.machines.fleet import Fleet
from mags.host.machines.journal import Journal
from mags.host.machines.parts import Parts
from mags.host.machines.pool import WARMING, Pool
from mags.host.machines.presence import Herald
from mags.host.machines.record import Record, Records
from mags.host.machines.relief import Relief
from mags.host.machines.requests import Requests
from mags.host.machines.uploads import Uploads
from mags.host.network import NamespacePool
from mags.host.storage.config import StorageSettings
from mags.host.vmm.driver import Vmm
from mags.host.vmm.qemu import QemuVmm
from mags.hostclient import HostClient
from mags.kit import nats
from mags.kit.locks import exclusive
from mags.kit.tasks import end

log = logging.getLogger(__name__)

LOCK_S = 10.0
"""How long another host program of the same data directory may take to end."""
GREETING_S = 60.0


class Stopped(Exception):
    """The program was told to end."""


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT, or after SIGUSR1 until every VM is put away. TimeoutError when NATS, or another host
    program's end, does not come in time."""
    stop, leave = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, leave.set)
    images = ImageStore(settings.cache, agent_path())
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(exclusive(settings.state / remains.LOCK, timeout=LOCK_S))
        await remains.clear_abandoned(settings.runtime_dir)
        vmm = await QemuVmm.open(images, settings.state, rehearse, settle, accelerator=settings.accel)
        await serve(settings, vmm, images, stop, leave=leave, storage=StorageSettings())


async def serve(
    settings: Settings,
    vmm: Vmm,
    images: ImageStore,
    stop: asyncio.Event,
    *,
    leave: asyncio.Event | None = None,
    storage: StorageSettings | None = None,
    memory: Memory = meminfo,
) -> None:
    """The program on a given hypervisor, until `stop` is set, or all that follows `leave` is done. storage: None keeps
    no synced workspaces. memory: what the machine has."""
    url = settings.nats_url.get_secret_value()
    async with AsyncExitStack() as stack:
        client = await nats.connect(url, name=f"host {settings.host_id}")
        stack.push_async_callback(client.close)
        await claim(client, settings.host_id)
        attachments = await stack.enter_async_context(
            Attachments.open(
                storage or StorageSettings(kind="off"), settings.state / "storage", host_id=settings.host_id
            )
        )
        namespaces = await open_networks(settings, attachments.services)
        stack.push_async_callback(namespaces.aclose)
        groups = Cgroups.detect(namespaces.installation)
        stack.callback(groups.close)
        records = Records(settings.state / "records")
        cells = Cells(
            vmm,
            namespaces,
            UidPool.of_installation(namespaces.installation),
            groups,
            records,
            directory=settings.state / "vms",
            at_once=settings.clones_at_once or 2 * (os.cpu_count() or 1),
        )
        journal = Journal(client)
        capacity = Capacity(settings, making=lambda: cells.making, vms=lambda: len(fleet), memory=memory)
        pool = Pool(cells, capacity, settings)
        events = Events(journal, settings.host_id)
        uploads = Uploads(client, settings.state / "uploads")
        parts = Parts(
            settings, capacity, cells, pool, records, journal, events, uploads, HostClient(client), attachments
        )
        fleet = Fleet(parts, capacity)
        relief = Relief(capacity, pool, lambda: fleet.machines)
        requests = Requests(client, settings.host_id, fleet, vmm, attachments)
        herald = Herald(
            client,
            settings,
            vmm,
            fleet,
            pool,
            capacity,
            lambda: [image.name for image in images.list()],
            attachments,
        )
        left = await sweep(cells, records)
        await journal.prepare()
        try:
            async with asyncio.TaskGroup() as tasks:
                taken_up = asyncio.Event()
                tasks.create_task(fleet.run(left, taken_up))
                await taken_up.wait()
                tasks.create_task(pool.fill())
                tasks.create_task(relief.run())
                tasks.create_task(requests.serve())
                tasks.create_task(herald.run())
                log.info("host %s serves, %d VMs were left by an earlier program", settings.host_id, len(left))
                await _until_told(stop, leave or asyncio.Event(), lambda: depart(fleet, capacity))
                attachments.unmount = all(machine.is_put_away for machine in fleet.machines)
                raise Stopped
        except* Stopped:
            log.info("host %s ends; %d VMs stay", settings.host_id, len(fleet))


async def _until_told(stop: asyncio.Event, leave: asyncio.Event, depart: Callable[[], Awaitable[None]]) -> None:
    async def departed() -> None:
        await leave.wait()
        await depart()

    ways = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(departed())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(ways)


async def open_networks(settings: Settings, services: Mapping[int, int]) -> NamespacePool:
    return await NamespacePool.open(
        settings.state,
        subnet=settings.subnet,
        target=settings.namespace_target,
        allowed=settings.allowed_networks,
        blocked=settings.blocked_networks,
        allow_smtp=settings.allow_smtp,
        host_services=dict(services),
        runtime=settings.runtime_dir,
    )


async def sweep(cells: Cells, records: Records) -> list[Record]:
    """The records of VMs to go on with; everything else that an earlier program left is removed."""
    every = list(records.read_all())
    await cells.sweep(every)
    for record in every:
        if record.vm_id is None:
            await cells.clean(record)
    return [record for record in every if record.vm_id is not None]


async def rehearse(socket: Path) -> None:
    """A template that boots: wait for its agent, and touch what every clone will need."""
    channel = await Channel.connect(socket, timeout=GREETING_S)
    try:
        process = await channel.exec(Exec(builtin=Builtin.WARM))
        while (piece := await process.next_output()) is not None:
            process.acknowledge(piece.stream, piece.offset + len(piece.data))
        await process.release()
        # All that is the same in each of them, its network above all.
        await channel.configure(replace(welcome.first(), root=False, machine_id=None, grow=False))
    finally:
        await channel.aclose()


async def settle(socket: Path) -> None:
    """Then its root is mounted and a script run in it, so that no clone need do so for the first time."""
    channel = await Channel.connect(socket, timeout=GREETING_S)
    try:
        wish = replace(welcome.first(), machine_id=None)
        _, process = await channel.configure_and_exec(wish, Exec(script=WARMING))
        while (piece := await process.next_output()) is not None:
            process.acknowledge(piece.stream, piece.offset + len(piece.data))
        await process.release()
        await channel.flush()
    finally:
        await channel.aclose()
