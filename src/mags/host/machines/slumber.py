r"""A cell on its way to sleep and back: hypervisor, channel, control group. (When, and what else: `sleeper`.)

Cell --save--> (files in the VM's directory, a network, a user; no process) --wake--> Cell
   \--(it can't be saved)--> reconnect: the same VM, which never stopped to be
A VM that wakes stands still until all around it is ready: what fails before leaves it asleep.
A VM without a memory that is of use --restart--> Cell on its own disk, as after a loss of power
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mags.host.guest import Channel, ChannelClosed, GuestError
from mags.host.machines import welcome
from mags.host.machines.cells import GREETING_S, Cell, Cells, greet, offer_to_the_oom_killer, shape
from mags.host.machines.record import Record, StartupRecord
from mags.host.network import Namespace
from mags.host.vmm.driver import SnapshotUnusable, Vm, VmmError
from mags.protocol.guest import Configure

if TYPE_CHECKING:
    from mags.host.machines.keeper import Keeper

log = logging.getLogger(__name__)

NO_ANSWER = "Its guest did not answer after it was woken"


async def save(cell: Cell) -> None:
    """Raises VmmError: it runs on, but its channel is closed (`reconnect`)."""
    await cell.channel.aclose()
    await cell.vm.save()
    if cell.group is not None:
        try:
            await cell.group.destroy()
        except (OSError, TimeoutError) as error:
            log.warning("the control group of VM %s stays: %s", cell.record.handle, error)


async def reconnect(cell: Cell) -> Cell:
    """Raises ChannelClosed, TimeoutError."""
    channel = await Channel.connect(cell.vm.channel_path, timeout=GREETING_S)
    return Cell(cell.record, cell.vm, channel, cell.namespace, cell.group)


async def wake(cells: Cells, record: Record, keeper: Keeper) -> tuple[Cell, str]:
    """The VM, up, told the time and given randomness; and why it had to be started afresh, if it had.

    Raises Problem, VmmError, NetworkError, ChannelClosed, GuestError, TimeoutError, OSError: it sleeps on.
    """
    disk = await keeper.disk()
    async with cells.turn:
        namespace = await cells.network(record)
        group = cells.group(record)
        directory = cells.directory(record)
        try:
            vm = await cells.vmm.wake(
                shape(record.spec), directory, namespace=namespace, uid=record.uid, work_disk=disk, group=group
            )
            channel = await _greet(
                vm, namespace, keeper, lambda: welcome.again(record.environment), cells.turn, woken=True
            )
            return Cell(record, vm, channel, namespace, group), ""
        except SnapshotUnusable as error:
            lost = str(error)
        except (VmmError, ChannelClosed, GuestError, TimeoutError) as error:
            if cells.vmm.asleep(directory):
                raise
            lost = f"{NO_ANSWER}: {error}"
    log.warning("VM %s has lost its memory: %s", record.handle, lost)
    return await restart(cells, record, keeper), lost


async def restart(cells: Cells, record: Record, keeper: Keeper) -> Cell:
    """Started afresh on its own disk, all of which is synced (`Keeper.salvage`), its startup command to be run.

    Raises as `wake`; the disk stays whatever happens, and it may be tried again.
    """
    disk = await keeper.disk()
    record.startup = StartupRecord() if record.startup_command else None
    cells.records.write(record)
    async with cells.turn:
        namespace = await cells.network(record)
        group = cells.group(record)
        vm = await cells.vmm.restart(
            shape(record.spec),
            cells.directory(record),
            namespace=namespace,
            uid=record.uid,
            work_disk=disk,
            group=group,
        )

        def greeting() -> Configure:
            return welcome.first(record.environment, jfs=keeper.jfs, disk_bytes=vm.disk_bytes)

        channel = await _greet(vm, namespace, keeper, greeting, cells.turn)
        return Cell(record, vm, channel, namespace, group)


async def _greet(
    vm: Vm,
    namespace: Namespace,
    keeper: Keeper,
    wish: Callable[[], Configure],
    turn: asyncio.Semaphore,
    *,
    woken: bool = False,
) -> Channel:
    """A VM that does not answer is ended; one that we are told to leave, left. Its changes are followed before it may
    write. wish: what it is told, made when it is, so that its clock is right and its /jfs known."""
    try:
        offer_to_the_oom_killer(vm.pid)
        await keeper.begin(vm, namespace.host_address)
        if woken:
            await vm.resume()
        channel = await greet(vm, turn=turn)
        try:
            if woken and keeper.has:
                await _thaw(channel)
            await channel.configure(wish())
        except BaseException:
            await channel.aclose()
            raise
        return channel
    except asyncio.CancelledError:
        await vm.release()
        raise
    except BaseException:
        await vm.kill()
        raise


async def _thaw(channel: Channel) -> None:
    """Settled before it was saved; by now it may have thawed by itself."""
    try:
        await channel.thaw()
    except GuestError as error:
        log.debug("%s", error)
