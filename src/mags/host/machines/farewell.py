r"""What a VM leaves that has no process any more is saved to its workspace, however long the storage is away. Whoever
wishes its end is not kept waiting for as long: control is told then that it is over, and what has not been saved.

saved --> told: gone (or failed)
not yet, and its end is wished --> told: failed, its last changes are here --saved later--> nothing left
                                                                             |--(a newer VM has the workspace)--> aside
                                                                             \--(its directory is removed)--> given up
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from mags.kit.tasks import end
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine

log = logging.getLogger(__name__)


async def see_saved(machine: Machine, saving: Coroutine[Any, Any, None], reason: str) -> bool:
    """Carry out `saving`, as long as it takes. True: control was told before it was done (`machine.gone` is set).

    reason: why the VM ends, in a sentence.
    """
    work, wish = asyncio.ensure_future(saving), asyncio.ensure_future(_patience(machine))
    try:
        await asyncio.wait({work, wish}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            await _tell(machine, reason)
        await work
        if machine.record.unsaved:
            await _look_after_what_was_refused(machine)
        return machine.gone.is_set()
    finally:
        await end([work, wish])


async def _patience(machine: Machine) -> None:
    await machine.stop_wished.wait()
    await asyncio.sleep(machine.parts.settings.stall_patience_s)


async def _tell(machine: Machine, reason: str) -> None:
    host_id, place = machine.parts.settings.host_id, machine.parts.cells.directory(machine.record)
    log.warning("VM %s has ended, and its last changes can't be saved yet: they are kept in %s", machine.vm_id, place)
    kept = f"Its last changes are kept on host {host_id}, and saved to its workspace when the storage works again."
    machine.record.unsaved = True
    await machine.standing.publish(VmState.FAILED, f"{reason} {kept}")
    machine.gone.set()


async def _look_after_what_was_refused(machine: Machine) -> None:
    if machine.keeper.given_up:
        log.error("nothing is left of VM %s to be saved: its directory is gone", machine.vm_id)
    elif not machine.keeper.fenced:
        log.info("the last changes of VM %s are saved", machine.vm_id)
    elif not machine.keeper.deleted:
        place = await machine.parts.cells.set_aside(machine.record)
        log.error("the last changes of VM %s came too late for its workspace: they are in %s", machine.vm_id, place)
