"""A VM is known to be gone: record it, after everything it has reported."""

from __future__ import annotations

from mags.control.lifecycles.barrier import events_recorded
from mags.control.lifecycles.endings import Effects, end_vm
from mags.control.lifecycles.rows import hold
from mags.control.lifecycles.world import World
from mags.control.models import Vm
from mags.protocol.states import VmState


async def release(world: World, vm_id: str, *, state: VmState, reason: str = "") -> None:
    """End the VM in the records; its workspace is free for another one then. Repeatable."""
    await events_recorded(world)
    effects = Effects()
    async with world.db.write() as session:
        vm = await hold(session, Vm, vm_id)
        if vm is not None:
            await end_vm(session, vm, effects, state=state, reason=reason)
    await effects.apply(world)
