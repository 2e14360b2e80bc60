"""What becomes of the VMs when a server goes down: those that are to stay are put to sleep, the others end.

A VM that can't sleep is stopped, after its workspace was saved; one whose files are nowhere else is left as it is, for
the next start to go on with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from nats.aio.client import Client

from mags.protocol import messages as m
from mags.protocol.errors import Problem
from mags.protocol.states import FINAL_VM_STATES, VmState
from mags.supervisor.rpc import ask

log = logging.getLogger(__name__)

AT_ONCE = 4
"""VMs that are put away at the same time."""
DEADLINE = 90.0
"""Seconds for all of them."""


async def put_away(client: Client, host_ids: Iterable[str], *, until: float, note: Callable[[str], None]) -> None:
    """Every VM of these hosts asleep or ended, as far as that goes until then (the event loop's time); failures are
    logged. Called again, it takes those that have come or woken meanwhile."""
    gate = asyncio.Semaphore(AT_ONCE)
    try:
        async with asyncio.timeout_at(until), asyncio.TaskGroup() as tasks:
            for host_id in host_ids:
                vms = [vm for vm in await _vms(client, host_id) if _is_alive(vm)]
                if vms:
                    note(f"putting {len(vms)} VM{'s' if len(vms) > 1 else ''} away")
                for vm in vms:
                    tasks.create_task(_put_away(client, host_id, vm, gate))
    except TimeoutError:
        log.warning("not every VM could be put away in time")


def _is_alive(vm: m.VmReport) -> bool:
    return vm.state not in FINAL_VM_STATES and vm.state not in (VmState.SLEEPING, VmState.STOPPING)


async def _vms(client: Client, host_id: str) -> list[m.VmReport]:
    try:
        return (await ask(client, host_id, "list", m.Empty(), m.VmList, timeout=10)).vms
    except Problem as problem:
        log.warning("host %s does not say which VMs it has: %s", host_id, problem)
        return []


async def _put_away(client: Client, host_id: str, vm: m.VmReport, gate: asyncio.Semaphore) -> None:
    async with gate:
        try:
            if vm.keep != "job":
                try:
                    await ask(client, host_id, "sleep", m.VmRequest(vm_id=vm.vm_id, force=True), m.Done, timeout=60)
                    return
                except Problem as problem:
                    if vm.workspace_id is None:
                        log.warning("VM %s can't sleep (%s): it is left as it is", vm.vm_id, problem)
                        return
                    log.info("VM %s can't sleep (%s): it is stopped", vm.vm_id, problem)
            await ask(client, host_id, "stop", m.Stop(vm_id=vm.vm_id), m.Done, timeout=60)
        except Problem as problem:
            log.warning("VM %s can't be stopped: %s", vm.vm_id, problem)
