r"""The synced workspace of one machine: the steps of its life that it takes part in. Without one, it does nothing.

    attach --> [disk] --> begin (before the guest may write) --> sync ... --> settle --> (asleep | ended) --> release
                                                                     \--> thaw: it goes on
    its VM died --> salvage --> release

Nothing that a guest has written is given up: a VM's end waits until the last sync is done, or what its disk holds is
saved, however long the storage is away; a restart of the host program goes on with that. Who wishes the end does not
wait for so long (see `farewell`). Only an attachment that another host has taken over ends without: what it would write
is older than what there is (`fenced`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mags.host.attachments import Workspace
from mags.host.guest import ChannelClosed, GuestError, Jfs
from mags.host.machines.again import until_done
from mags.host.machines.cells import Cell
from mags.host.machines.inbox import Stop
from mags.host.machines.problems import as_problem
from mags.host.machines.roster import seen
from mags.host.vmm.driver import Vm
from mags.host.vmm.spec import WorkDisk
from mags.kit.tasks import end
from mags.protocol.errors import Problem
from mags.protocol.messages import Synced
from mags.protocol.states import VmState

if TYPE_CHECKING:
    from mags.host.machines.machine import Machine

log = logging.getLogger(__name__)

LOOK_S = 0.2
BREATH_S = 0.5
"""After a run, before its sync: runs that follow each other are synced together."""
STILL_S = 3.0
"""A VM that stands still for so long is not waited for by who wants it synced."""
AWAY_S, LAST_SYNC_S = 60.0, 240.0
"""A VM that runs, but can't sync after its end was wished, is not waited for longer than this: while the storage is
away, and in all. Less than callers wait, and than control does."""
RELEASE_S = 10.0
"""For the end of a lease, which runs out anyway."""
SETTLE_S = 300.0
"""For the last sync before a sleep."""
TAKEN = "Another VM has taken over the workspace"
LOCAL = "This VM has no synced workspace: its files are on its own disk only."


class Keeper:
    """Of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._workspace: Workspace | None = None
        self._attending: asyncio.Task[None] | None = None
        self._attaching, self._taking_up = asyncio.Lock(), asyncio.Lock()
        self._leased = False
        """Whether an earlier host program has left a lease."""
        self._parkings = 0
        self.fenced = False
        """Whether another host has the workspace now, or it was deleted."""
        self.deleted = False
        self.given_up = False
        """Whether an operator has removed what was to be saved."""
        self._finished = False
        """Whether everything was synced before its end."""

    @property
    def has(self) -> bool:
        """Whether there is a workspace, attached or to be attached."""
        return self._machine.record.attachment is not None

    @property
    def jfs(self) -> Jfs | None:
        """What the guest is to mount on /jfs."""
        return self._workspace.jfs if self._workspace is not None else None

    async def attach(self) -> Workspace:
        """Take the workspace, or go on with it. Raises Problem."""
        async with self._attaching:
            if self._workspace is None:
                record, parts = self._machine.record, self._machine.parts
                assert record.attachment is not None
                if parts.attachments is None:
                    raise Problem("not_available", "This host has no storage for synced workspaces: use no_sync.")
                self._workspace = await parts.attachments.attach(
                    record.attachment,
                    vm_id=self._machine.vm_id,
                    owner=record.owner,
                    name=record.name or "",
                    image=record.spec.image,
                    publish=parts.events.publish,
                )
            return self._workspace

    async def hold(self) -> None:
        """A VM that an earlier host program left asleep: what it will read when it wakes must not be collected as a
        dead host's until then."""
        if self.has:
            self._leased = True
            with self._unless_taken():
                await self._until_done("hold its workspace", self._attached)

    async def _attached(self) -> None:
        await self.attach()

    @contextmanager
    def _unless_taken(self) -> Iterator[None]:
        """Ends the VM when another one has its workspace."""
        try:
            yield
        except Problem as problem:
            if problem.code != "conflict":
                raise
            self.fenced = True
            log.error("VM %s is ended: %s", self._machine.vm_id, problem.message)
            self._machine.tell(Stop(f"{TAKEN}: {problem.message}"))

    async def disk(self) -> WorkDisk | None:
        """The VM's disk where it is not an empty one of its own. Raises Problem."""
        return (await self.attach()).work_disk if self.has else None

    async def begin(self, vm: Vm, host_address: str) -> None:
        """Serve /jfs and follow the disk's changes; before the guest may write."""
        if self.has:
            workspace = await self.attach()
            await workspace.serve(host_address)
            await workspace.begin(vm, lambda: self._machine.uptime.need.channel)

    async def attend(self, cell: Cell) -> None:
        """While the VM is up: sync now and then. A VM that was adopted gets its workspace here, as soon as there is
        a storage."""
        if not self.has:
            return
        self._attending = asyncio.current_task()
        try:
            with self._unless_taken():
                await self._until_done("take its workspace up again", lambda: self._resume(cell))
                await self._need().run()
        finally:
            self._attending = None

    def parked(self) -> None:
        """The VM's last script has ended: what it left is synced at once, and not only when its time has come."""
        if self.has and not self.fenced:
            self._parkings += 1
            self._machine.attendants.attend(self._sync_soon(self._parkings), "sync after a run")

    async def _sync_soon(self, parking: int) -> None:
        await asyncio.sleep(BREATH_S)
        calm = self._machine.state is VmState.PARKED and parking == self._parkings
        workspace = self._workspace
        if calm and workspace is not None and not workspace.discard:
            try:
                await workspace.sync()
            except Problem as problem:  # it is tried again regularly
                log.warning("VM %s can't sync after its run: %s", self._machine.vm_id, problem)

    async def sync(self) -> Synced:
        """Now. Raises Problem."""
        machine = self._machine
        if not self.has:
            raise Problem("conflict", LOCAL)
        if machine.state is VmState.SLEEPING:
            # It was synced before it fell asleep, and nothing has changed since.
            last = self._workspace.last if self._workspace is not None else None
            return last or Synced(synced_at_ms=machine.record.slept_at_ms)
        if machine.state is VmState.STOPPING:
            return await self._synced_at_the_end()
        async with machine.use():
            return await self._sync_unless_stalled()

    async def _sync_unless_stalled(self) -> Synced:
        """Nobody waits for a guest that can't answer. What was begun is done when it goes on."""
        stall = self._machine.uptime.need.vm.stall
        syncing = asyncio.ensure_future(self._need().sync())
        syncing.add_done_callback(seen)
        while stall.lasted_s < STILL_S:
            await asyncio.wait({syncing}, timeout=LOOK_S)
            if syncing.done():
                return syncing.result()
        raise Problem("unavailable", f"The VM stands still: {stall.reason}. It goes on, and is synced, by itself.")

    async def _synced_at_the_end(self) -> Synced:
        """A VM that ends syncs before that."""
        await self._machine.gone.wait()
        last = self._workspace.last if self._workspace is not None else None
        if not self._finished or last is None:
            raise Problem("gone", "The VM has ended, and could not make a last sync.")
        return last

    async def grow(self, disk_gb: int) -> None:
        """Raises Problem."""
        record = self._machine.record
        if not self.has:
            raise Problem("not_available", "Only the disk of a synced workspace can grow.")
        async with self._machine.use():
            await self._need().grow(disk_gb)
            assert record.attachment is not None
            record.attachment.disk_gb = max(record.attachment.disk_gb, disk_gb)
            self._machine.standing.write()

    async def prepare(self) -> None:
        """The VM is to fall asleep soon: sync what has gathered."""
        if self.has and not self._need().discard:
            await self._need().sync()

    async def settle(self) -> None:
        """Everything is synced, the guest writes no more, nothing more is synced. Raises Problem: call `go_on`."""
        if self.has:
            await self._stop_attending()
            async with asyncio.timeout(SETTLE_S):
                await self._need().settle()

    async def go_on(self, cell: Cell) -> None:
        """The VM does not end or sleep after all."""
        if self.has:
            await self.thaw()
            if self._attending is None:
                self._machine.attendants.attend(self.attend(cell), "workspace")

    async def thaw(self) -> None:
        """The guest may write again. A guest that does not hear it thaws by itself."""
        if self._workspace is not None:
            try:
                await self._workspace.resume()
            except (Problem, GuestError, ChannelClosed, TimeoutError) as error:
                log.warning("VM %s can't be told to write again: %s", self._machine.vm_id, error)

    async def finish(self, cell: Cell) -> bool:
        """The last sync of a VM that ends; returns when it is done, or there is nothing to be done.

        False: there can be none. What its disk holds is to be saved then (`salvage`), when it has no process.
        """
        if not self.has or self.fenced:
            return True

        async def settle() -> None:
            await self._resume(cell)
            await self._need().settle()

        await self._stop_attending()
        syncing = asyncio.ensure_future(self._until_done_or_fenced("make its last sync", settle))
        hopeless = asyncio.ensure_future(self._hopeless(cell))
        try:
            await asyncio.wait({syncing, hopeless}, return_when=asyncio.FIRST_COMPLETED)
            if syncing.done():
                syncing.result()
                self._finished = not self.fenced
            return syncing.done()
        finally:
            await end([syncing, hopeless])

    async def _hopeless(self, cell: Cell) -> None:
        """Returns when a VM that is to end won't sync any more: one that stands still can't."""
        machine = self._machine
        patience_s = machine.parts.settings.stall_patience_s
        wished_at = worked_at = time.monotonic()
        while cell.alive:
            now = time.monotonic()
            if not machine.stop_wished.is_set():
                wished_at = worked_at = now
            elif cell.vm.stall.lasted_s >= patience_s:
                break
            if self._storage_works():
                worked_at = now
            if now - worked_at >= AWAY_S or now - wished_at >= LAST_SYNC_S:
                break
            await asyncio.sleep(LOOK_S)

    async def salvage(self) -> None:
        """The VM has died: keep what its disk holds; returns when it is done, or there is nothing to be done."""
        if self.has and not self.fenced:
            await self._until_done_or_fenced("save what its disk holds", self._salvage)

    async def release(self) -> None:
        """The VM is gone for good."""
        if self._workspace is not None or self._leased:
            try:
                async with asyncio.timeout(RELEASE_S):
                    await (await self.attach()).release()
            except (Problem, TimeoutError) as error:
                words = as_problem(error).message
                log.warning("the workspace of VM %s stays leased until that runs out: %s", self._machine.vm_id, words)

    # --- steps ----------------------------------------------------------------------------------------------------

    def _need(self) -> Workspace:
        if self._workspace is None:
            raise Problem("unavailable", "The VM's workspace is not attached again yet: try again in a moment.")
        return self._workspace

    async def _resume(self, cell: Cell) -> None:
        """Harmless if it is done."""
        async with self._taking_up:
            if self._workspace is None:
                workspace = await self.attach()
                try:
                    await self.begin(cell.vm, cell.namespace.host_address)
                except BaseException:
                    self._workspace = None
                    raise
                self._machine.dispatcher.jfs = workspace.jfs

    async def _stop_attending(self) -> None:
        if self._attending is not None:
            self._attending.cancel()
            await asyncio.gather(self._attending, return_exceptions=True)

    async def _salvage(self) -> None:
        parts, record = self._machine.parts, self._machine.record
        directory = parts.cells.directory(record)
        self.given_up = not directory.exists()
        if not self.given_up:
            await (await self.attach()).salvage(parts.cells.vmm, directory)

    async def _until_done_or_fenced(self, words: str, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._until_done(words, step)
        except Problem as problem:
            self.fenced, self.deleted = True, bool(problem.details.get("deleted"))
            log.error("VM %s ends without its last changes: %s", self._machine.vm_id, problem.message)

    async def _until_done(self, words: str, step: Callable[[], Awaitable[None]]) -> None:
        await until_done(f"VM {self._machine.vm_id} can't {words}", step, self._storage_works)

    def _storage_works(self) -> bool:
        attachments = self._machine.parts.attachments
        return attachments is not None and attachments.status == "ok"
