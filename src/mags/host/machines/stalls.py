"""A VM that stands still for want of its disk: it is said, and the guest is told the time when it goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mags.host.guest import ChannelClosed, GuestError
from mags.host.machines import welcome
from mags.host.machines.cells import Cell
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine

log = logging.getLogger(__name__)


async def watch(machine: Machine, cell: Cell) -> None:
    """As long as the VM is up."""
    stall = cell.vm.stall
    while True:
        reason = await stall.begins()
        log.warning("VM %s stands still: %s", machine.vm_id, reason)
        _say(machine, f"The VM stands still: {reason}. It goes on by itself.")
        await stall.ends()
        log.info("VM %s goes on", machine.vm_id)
        _say(machine, "")
        try:
            await cell.channel.configure(welcome.again(machine.record.environment))
        except (GuestError, TimeoutError) as error:
            log.warning("VM %s can't be told the time: %s", machine.vm_id, error)
        except ChannelClosed:
            return


def _say(machine: Machine, reason: str) -> None:
    if machine.state in (VmState.RUNNING, VmState.PARKED):
        machine.standing.announce(machine.state, reason)
