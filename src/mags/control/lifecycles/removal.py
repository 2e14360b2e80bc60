"""When a VM goes that sleeps, and whose files are nowhere else."""

from __future__ import annotations

from mags.control.lifecycles.world import World
from mags.control.models import Vm
from mags.protocol.states import VmState


def removed_ms(world: World, vm: Vm | None) -> int | None:
    """Unix milliseconds, unless it is used before. None: it is not to be removed, or nobody knows when.

    Whether jobs of it are open makes no difference: a VM that was parked with its files falls asleep after the last.
    """
    if vm is None or not vm.active or vm.state != VmState.SLEEPING or vm.attached or vm.no_sleep:
        return None
    view = world.hosts.get(vm.host_id) if vm.host_id is not None else None
    retention_s = view.presence.local_retention_s if view is not None else None
    return None if retention_s is None else vm.state_ms + round(retention_s * 1000)
