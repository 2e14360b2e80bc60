"""Hosts that have fallen silent for good, and hosts that have come back.

| what was there            | becomes, when its host is lost                                         |
|---------------------------|------------------------------------------------------------------------|
| a run of a script         | error, with the reason                                                 |
| a parked VM               | gone; its workspace is free                                            |
| a persistent VM           | sleeping: it wakes elsewhere (synced), or when its host is back (local)|
| a VM that never sleeps    | started again elsewhere from its last sync                             |
"""

from __future__ import annotations

import logging

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.db import now_ms
from mags.control.lifecycles.barrier import events_recorded
from mags.control.lifecycles.endings import Effects, end_vm
from mags.control.lifecycles.reports import follow_vm
from mags.control.lifecycles.rows import hold
from mags.control.lifecycles.world import World
from mags.control.models import Vm
from mags.hostclient import HostState
from mags.protocol.errors import Problem
from mags.protocol.messages import Empty, VmList, VmReport
from mags.protocol.states import FINAL_VM_STATES, VmState

log = logging.getLogger("mags.control.lost")

GRACE_MS = 5_000
"""A VM younger than this may be on its way to its host while the host counts."""


async def lost_hosts(world: World) -> None:
    """Deal with the VMs of every host that is lost now. Repeatable."""
    async with world.db.read() as session:
        names = (await session.execute(select(Vm.host_id).where(Vm.active.is_(True)).distinct())).scalars().all()
    for host_id in names:
        if host_id is not None and world.hosts.state(host_id) is HostState.LOST:
            world.client.give_up(host_id)
            await _lose(world, host_id)


async def _lose(world: World, host_id: str) -> None:
    reason = f"Host {host_id} was lost (silent for {world.hosts.lost_after:g} s)."
    here = select(Vm).where(Vm.host_id == host_id, Vm.active.is_(True), Vm.started.is_(True) | (Vm.starter == ""))
    waits = (Vm.keep == "stay") & (Vm.state == VmState.SLEEPING) & ~(Vm.no_sleep & Vm.attached)
    async with world.db.read() as session:
        if (await session.execute(here.where(~waits).limit(1))).scalar_one_or_none() is None:
            return
    await events_recorded(world)
    if world.hosts.state(host_id) is not HostState.LOST:
        return
    effects = Effects()
    async with world.db.write() as session:
        for vm in (await session.execute(here.order_by(Vm.id).with_for_update())).scalars().all():
            if vm.started and vm.keep == "stay" and not (vm.no_sleep and vm.attached):
                if vm.state != VmState.SLEEPING:
                    log.warning("VM %s of lost host %s counts as asleep", vm.id, host_id)
                    vm.state = VmState.SLEEPING
                    await session.flush()
                    await follow_vm(session, vm, effects)
            else:
                log.warning("VM %s ends: %s", vm.id, reason)
                await end_vm(session, vm, effects, state=VmState.FAILED, reason=reason)
    await effects.apply(world)


async def reconcile(world: World, host_id: str) -> None:
    """Compare a host's VMs with the records, after it has started anew or has come back."""
    async with world.db.read() as session:
        before = {
            row[0]
            for row in await session.execute(
                select(Vm.id).where(
                    Vm.host_id == host_id,
                    Vm.active.is_(True),
                    Vm.started.is_(True),
                    # One that was made in the future was made before the clock was set back.
                    (Vm.created_ms < now_ms() - GRACE_MS) | (Vm.created_ms > now_ms() + GRACE_MS),
                )
            )
        }
    try:
        listed = await world.client.request(host_id, "list", Empty(), VmList, timeout=30)
        await events_recorded(world)
    except Problem as problem:
        log.warning("host %s could not be compared with the records: %s", host_id, problem.message)
        return
    there = {report.vm_id: report for report in listed.vms}
    effects = Effects()
    async with world.db.write() as session:
        for vm_id in before - there.keys():
            vm = await hold(session, Vm, vm_id)
            if vm is not None and vm.host_id == host_id:
                log.warning("VM %s is not on its host %s any more", vm_id, host_id)
                reason = "The VM was lost while its host was away."
                await end_vm(session, vm, effects, state=VmState.FAILED, reason=reason)
        for report in listed.vms:
            await _compare(session, host_id, report, effects)
    await effects.apply(world)


async def _compare(session: AsyncSession, host_id: str, report: VmReport, effects: Effects) -> None:
    if not report.owner:
        return  # one of the host's pool, nobody's yet
    vm = await hold(session, Vm, report.vm_id)
    if vm is None or not vm.active or vm.host_id != host_id:
        log.warning("VM %s on host %s belongs to nobody; it is ended", report.vm_id, host_id)
        effects.stale[report.vm_id] = host_id
        return
    try:
        state = VmState(report.state)
    except ValueError:
        return
    if vm.started and state != vm.state and state not in FINAL_VM_STATES:
        vm.state = state
        await session.flush()
        await follow_vm(session, vm, effects)
