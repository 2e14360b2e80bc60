"""What changed on a VM's work disk since the last time it was asked: QEMU's dirty bitmaps and its backup job.

    track -> tracking --capture--> captured --accept--> tracking   (the store has it)
                          |            `------revert--> tracking   (it has not: nothing is lost)
                          `-(any error)--> tracking

A capture is written to a file on the host's own disk and never straight to the workspace's store: while QEMU copies,
the guest's writes to blocks that are not copied yet wait for the copy, and fail with it. The guest must not notice
how its store is.

There are two bitmaps while a capture is open: the older holds what the capture has, the newer what was written
since. All that a new host program finds after a crash is joined again (`track`), so it may copy a block twice, but
never forgets one.

QEMU tells its bitmaps only together with the sizes of all files (`query-named-block-nodes`). To learn that of the base
it asks the store, and the whole VM waits for the answer. So it is asked only right after the store has answered us
(`dirty`, the begin of `capture`), and what comes later goes by what is known: a store that dies in the middle of a
capture takes no VM along.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu import overlay
from mags.host.vmm.qemu.answers import Job, Node
from mags.host.vmm.qemu.increment import Applied, apply_file
from mags.host.vmm.qemu.machine import WORK_NODE
from mags.host.vmm.qemu.qmp import Events, Qmp, QmpError, QmpTimeout

BITMAP, JOB, STAGE = "mags-sync-", "mags-sync", "mags-stage"
STAGE_FILE = "stage.qcow2"
GRANULARITY = 64 << 10
"""Bytes that one bit stands for: the cluster size of the stage too, so a bit is a cluster."""
JOB_TIMEOUT = 600.0
"""Seconds for copying all changes to the host's own disk."""
NO_NODE = "Failed to find node"
"""What QEMU says of a name that it does not know."""
LOST = "QEMU follows the changes of the disk no more."
MARGIN = 256 << 20
"""Bytes of the host's disk that a capture leaves free."""

Step = Callable[[], Awaitable[None]]


class Monitored(Protocol):
    """As much of a QemuVm as is needed here."""

    @property
    def qmp(self) -> Qmp: ...

    @property
    def directory(self) -> Path: ...

    async def pass_file(self, path: Path, flags: int) -> str: ...


class Capture:
    """Changes of a disk, on the host's disk. `apply` blocks: run it in a thread."""

    def __init__(self, stage: Path, dirty: int, freeze_ms: int) -> None:
        self.freeze_ms = freeze_ms
        self._stage, self._dirty = stage, dirty

    def apply(self, target: Path, size: int) -> Applied:
        """Write the changes to the raw image `target` and wait until they are durable there (fsync). See driver."""
        applied = apply_file(self._stage, target, size)
        # QEMU does not report a failure to write its tables when it closes the stage: a lost table is lost clusters.
        if applied.data + applied.zeros < self._dirty:
            raise VmmError("The captured changes are not complete: is the host's disk full?")
        return applied


class BlockSync:
    """The changes of one VM's work disk. One user at a time."""

    def __init__(self, vm: Monitored) -> None:
        self._vm, self._qmp = vm, vm.qmp
        self._stage = vm.directory / STAGE_FILE
        self._numbers: list[int] | None = None
        """Of the bitmaps that there are, in order: the newest follows changes. None: QEMU must be asked."""
        self._open = False
        """Whether a capture is neither accepted nor reverted, or that failed half-way."""

    async def track(self) -> None:
        """Begin to follow changes, or go on after another host program did: leftovers of a capture are joined."""
        await self._clear_capture()
        self._numbers = None
        if not await self._asked():
            await self._add(_name(1))
        await self._join()

    async def dirty(self) -> int:
        """Bytes that a capture would copy now, in whole clusters of 64 KiB. The store must have answered just now."""
        return (await self._size())[1]

    async def capture(self, *, freeze: Step, thaw: Step) -> Capture:
        """Copy the changes to the host's disk, as they are at one moment.

        freeze, thaw: called around that moment; between them the guest must not write to its disk, and its file
        system must be whole. thaw is called whatever happens, once freeze was called.
        On any error nothing has changed but time. The caller must `accept` or `revert` what it gets. The store must
        have answered just before.
        """
        if self._open:
            await self.revert()
        size, dirty = await self._size()
        self._check_space(dirty)
        self._open = True
        try:
            await self._open_stage(size)
            freeze_ms = await self._start(freeze, thaw)
            dirty = await self._finish()
            await self._close_stage()
        except BaseException:
            await asyncio.shield(self.revert())
            raise
        return Capture(self._stage, dirty, freeze_ms)

    async def accept(self) -> None:
        """The captured changes are safe elsewhere: forget them."""
        self._stage.unlink(missing_ok=True)
        *others, newest = await self._known()
        await self._remove(others, newest)
        self._open = False

    async def revert(self) -> None:
        """The captured changes are not safe: they count as changed again."""
        await self._clear_capture()
        if self._numbers is not None:  # or else QEMU is asked when the store has answered
            await self._join()
        self._open = False

    async def _start(self, freeze: Step, thaw: Step) -> int:
        """The moment itself; how long the guest was frozen, in ms."""
        (number,) = await self._known()
        old, new = _name(number), _name(number + 1)
        begin = time.monotonic()
        try:
            await freeze()
            actions = [
                _action("block-dirty-bitmap-add", node=WORK_NODE, name=new, granularity=GRANULARITY),
                _action("block-dirty-bitmap-disable", node=WORK_NODE, name=old),
                _action(
                    "blockdev-backup",
                    job_id=JOB,
                    device=WORK_NODE,
                    target=STAGE,
                    sync="bitmap",
                    bitmap=old,
                    bitmap_mode="never",  # QEMU would clear it when the job ends, long before the store has it
                    auto_dismiss=False,
                ),
            ]
            self._numbers = None
            await self._qmp.execute("transaction", actions=actions)
            self._numbers = [number, number + 1]
        except QmpError:
            self._numbers = [number]
            raise
        finally:
            await asyncio.shield(thaw())
        return round((time.monotonic() - begin) * 1000)

    async def _finish(self) -> int:
        """Wait for the job: the bytes that it had to copy. VmmError with its own words if it failed."""
        with self._qmp.events("JOB_STATUS_CHANGE") as events:
            job = await self._concluded(events)
        if job is None:
            raise VmmError("QEMU has lost the job that copies the disk's changes.")
        await self._qmp.execute("job-dismiss", id=JOB)
        if job.error is not None:
            raise VmmError(f"QEMU could not copy the disk's changes: {job.error}.")
        return job.total_progress

    async def _concluded(self, events: Events) -> Job | None:
        """The job, when it has ended; None: there is none."""
        try:
            async with asyncio.timeout(JOB_TIMEOUT):
                while (job := await self._job()) is not None and job.status != "concluded":
                    await anext(events)
        except TimeoutError as error:
            raise QmpTimeout(f"QEMU has not copied the disk's changes within {JOB_TIMEOUT:g} s.") from error
        return job

    async def _clear_capture(self) -> None:
        """End the job and the node of a capture, whatever state they are in."""
        with self._qmp.events("JOB_STATUS_CHANGE") as events:
            if (job := await self._job()) is not None:
                if job.status != "concluded":
                    try:
                        await self._qmp.execute("job-cancel", id=JOB)
                    except QmpError:
                        pass  # it concluded just now
                await self._concluded(events)
                await self._qmp.execute("job-dismiss", id=JOB)
        await self._close_stage()
        self._stage.unlink(missing_ok=True)

    async def _open_stage(self, size: int) -> None:
        self._stage.unlink(missing_ok=True)
        await asyncio.to_thread(overlay.create, self._stage, self._stage, size, owner=0)
        name = await self._vm.pass_file(self._stage, os.O_RDWR)
        try:
            await self._qmp.execute(
                "blockdev-add",
                driver="qcow2",
                node_name=STAGE,
                backing=None,
                file={"driver": "file", "filename": name, "locking": "off"},
            )
        except BaseException:
            self._stage.unlink(missing_ok=True)
            raise
        finally:
            # QEMU drops the descriptor when the node is deleted.
            await self._qmp.execute("remove-fd", fdset_id=int(name.rpartition("/")[2]))

    async def _close_stage(self) -> None:
        try:
            await self._qmp.execute("blockdev-del", node_name=STAGE)
        except QmpError as error:
            if NO_NODE not in error.description:
                raise

    def _check_space(self, dirty: int) -> None:
        status = os.statvfs(self._vm.directory)
        free = status.f_bavail * status.f_frsize
        if free < dirty + MARGIN:
            raise VmmError(
                f"The host's disk has {free >> 20} MiB left and a sync needs {(dirty + MARGIN) >> 20}: make room."
            )

    async def _size(self) -> tuple[int, int]:
        """Bytes of the disk, and of its changes."""
        if self._numbers is None:
            await self._join()
        newest = _name((await self._known())[-1])
        node = await self._node()
        for bitmap in node.dirty_bitmaps:
            if bitmap.name == newest:
                return node.image.virtual_size, bitmap.count
        raise VmmError(LOST)

    async def _node(self) -> Node:
        for node in await self._qmp.ask("query-named-block-nodes", list[Node], flat=True):
            if node.node_name == WORK_NODE:
                return node
        raise VmmError("The VM has no work disk.")

    async def _known(self) -> list[int]:
        """At least one."""
        known = await self._asked() if self._numbers is None else self._numbers
        if not known:
            raise VmmError(LOST)
        return known

    async def _asked(self) -> list[int]:
        words = (bitmap.name.partition(BITMAP) for bitmap in (await self._node()).dirty_bitmaps)
        return sorted(int(number) for before, _, number in words if not before and number.isdecimal())

    async def _join(self) -> None:
        """Make all bitmaps the newest one, whichever that is: an answer of QEMU's may have been lost, and only the
        newest still follows changes."""
        *others, newest = await self._known()
        if others:
            self._numbers = None
            names = [_name(number) for number in others]
            await self._qmp.execute("block-dirty-bitmap-merge", node=WORK_NODE, target=_name(newest), bitmaps=names)
        await self._remove(others, newest)

    async def _add(self, name: str) -> None:
        await self._qmp.execute("block-dirty-bitmap-add", node=WORK_NODE, name=name, granularity=GRANULARITY)

    async def _remove(self, others: list[int], newest: int) -> None:
        self._numbers = None
        for number in others:
            await self._qmp.execute("block-dirty-bitmap-remove", node=WORK_NODE, name=_name(number))
        self._numbers = [newest]

    async def _job(self) -> Job | None:
        for job in await self._qmp.ask("query-jobs", list[Job]):
            if job.id == JOB:
                return job
        return None


def _name(number: int) -> str:
    return f"{BITMAP}{number}"


def _action(kind: str, **arguments: object) -> dict[str, object]:
    return {"type": kind, "data": {key.replace("_", "-"): value for key, value in arguments.items()}}
