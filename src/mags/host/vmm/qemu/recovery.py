"""A VM whose disk fails stands still until the disk works again; the guest sees a delay, and no error.

    running --(a read or write fails: QEMU stops it)--> io-error --[base reopened] cont--> running
                                                           ^---------(it fails again)--------'

The base of a workspace's disk lies on a mount that may be made anew (host.storage.mount): descriptors from before are
dead then, so the host opens the file again and hands it to QEMU, which could not itself. A full disk of the host, or a
store that is away, needs no more than to be tried again.

QEMU itself may wait for such a file, and answers nothing then, nor does its guest. That counts as standing still too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu.answers import FdSet, Node, Status
from mags.host.vmm.qemu.machine import WORK_BASE_NODE
from mags.host.vmm.qemu.qmp import Events, Qmp, QmpClosed, QmpTimeout
from mags.host.vmm.stall import Stall
from mags.kit.tasks import end

log = logging.getLogger(__name__)

BASE = "mags-base-"
"""Names of the nodes that have taken the place of a dead one."""
FIRST_TRY_S, AGAIN_S = 0.1, 1.0
STEADY_S = 0.5
"""A VM that runs for so long without another error is well."""
STATUS = "io-error"
"""What QEMU calls the state of a machine that it has stopped for its disk."""

_openers = ThreadPoolExecutor(4, thread_name_prefix="vm-base")
"""A mount may hang, and must take no thread along that others need."""


class Recovery:
    """Of one VM. base: the raw file under the VM's own overlay; None if it is not known."""

    def __init__(self, qmp: Qmp, base: Path | None, stall: Stall) -> None:
        self._qmp, self._base, self._stall = qmp, base, stall
        self._turn = asyncio.Lock()
        self._recovering = False
        self._no_space, self._words = False, "its disk does not work now"

    async def run(self) -> None:
        """As long as QEMU lives."""
        listening = asyncio.create_task(self._note_silence(), name="vm-silence")
        try:
            with self._qmp.events("BLOCK_IO_ERROR", "STOP") as events:
                while True:
                    if await self._failed():
                        await self._recover(events)
                    self._note(await anext(events))
        except QmpClosed:
            pass
        finally:
            await end([listening])
            self._stall.end()

    async def _note_silence(self) -> None:
        silence = self._qmp.silence
        while True:
            self._stall.begin(await silence.begins())
            await silence.ends()
            if not self._recovering:
                self._stall.end()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Inside, a VM that stands still is left so: it is being saved."""
        async with self._turn:
            yield

    async def _failed(self) -> bool:
        try:
            return (await self._qmp.ask("query-status", Status)).status == STATUS
        except QmpTimeout:
            return False  # the next event tells

    def _note(self, event: dict[str, Any]) -> None:
        data = event["data"]
        if event["event"] == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            self._no_space = bool(data.get("nospace"))
            words = "the host's disk is full" if self._no_space else str(data.get("reason", "an I/O error"))
            self._words = f"its disk does not work now ({words})"

    async def _recover(self, events: Events) -> None:
        self._recovering = True
        try:
            await self._try_until_it_runs(events)
        finally:
            self._recovering = False
        self._stall.end()

    async def _try_until_it_runs(self, events: Events) -> None:
        delay = FIRST_TRY_S
        while True:
            self._stall.begin(self._words)
            await asyncio.sleep(delay)
            delay = AGAIN_S
            try:
                async with self._turn:
                    if not await self._failed():
                        break
                    if self._base is not None and not self._no_space:
                        await self._reopen(self._base)
                    await self._qmp.execute("cont")
            except QmpClosed:
                raise
            except (OSError, VmmError) as error:
                log.debug("a VM's disk can't be had yet: %s", error)
                continue
            if not await self._fails_again(events):
                break

    async def _fails_again(self, events: Events) -> bool:
        """Whether another error comes soon after the VM was told to run."""
        try:
            async with asyncio.timeout(STEADY_S):
                while True:
                    self._note(await anext(events))
                    if await self._failed():
                        return True
        except TimeoutError:
            return False

    async def _reopen(self, base: Path) -> None:
        """Put the file, opened anew, in the place of the one that QEMU has."""
        descriptor = await _open(base)
        try:
            fdset = (await self._qmp.ask("add-fd", FdSet, fds=[descriptor])).id
        finally:
            os.close(descriptor)
        name = BASE + secrets.token_hex(4)
        try:
            await self._qmp.execute(
                "blockdev-add",
                driver="file",
                node_name=name,
                filename=f"/dev/fdset/{fdset}",
                locking="off",
                read_only=True,
            )
        finally:
            await self._qmp.execute("remove-fd", fdset_id=fdset)
        try:
            node = {"driver": "raw", "node-name": WORK_BASE_NODE, "read-only": True, "file": name}
            await self._qmp.execute("blockdev-reopen", options=[node])
        finally:
            await self._forget_unused()

    async def _forget_unused(self) -> None:
        """Delete all nodes of ours but the one in use, which QEMU refuses to delete."""
        for node in await self._qmp.ask("query-named-block-nodes", list[Node], flat=True):
            if node.node_name.startswith(BASE):
                try:
                    await self._qmp.execute("blockdev-del", node_name=node.node_name)
                except QmpClosed:
                    raise
                except VmmError:
                    pass


async def _open(path: Path) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    opening = _openers.submit(os.open, path, flags)
    try:
        return await asyncio.wrap_future(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opened: Future[int]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        os.close(opened.result())
