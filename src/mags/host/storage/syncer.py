"""The sync of one VM's workspace: what changed on its disk becomes the next generation, whole or not at all.

    sync:  guest flushes -> disk captured while the guest is frozen -> draft (clone of the newest generation)
           -> changes written and durable in the store -> published -> the capture forgotten -> committed

Until it is published the captured changes count as unsynced: an error anywhere costs time and nothing else. A
generation that is published but not committed (control is away) is the parent of the next one all the same, and
committed later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from mags.host.storage.attached import Attached
from mags.host.storage.errors import StaleEpoch
from mags.protocol.messages import Synced

log = logging.getLogger("mags.storage.syncer")

FREEZE_LIMIT = 20.0
"""Seconds after which a guest thaws by itself, should we die in between."""
APPLY_TIMEOUT = 1800.0
"""Seconds for writing all changes to the store."""
QUIET = 64 << 10
"""Bytes that the freeze itself makes dirty: the block group with ext4's superblock, which every thaw writes. Any
other change dirties the journal too, so a disk with no more than this has not changed since its last sync."""


class Guest(Protocol):
    """The guest agent, as much as a sync needs of it (host.guest.Channel is one)."""

    async def flush(self) -> None: ...

    async def freeze(self, *, limit_s: float) -> None: ...

    async def thaw(self) -> None: ...


class Applied(Protocol):
    @property
    def data(self) -> int: ...

    @property
    def zeros(self) -> int: ...


class Capture(Protocol):
    """Changes at one moment (vmm.driver.Capture is one). `apply` blocks until they are durable."""

    @property
    def freeze_ms(self) -> int: ...

    def apply(self, target: Path, size: int) -> Applied: ...


class Disk(Protocol):
    """A VM's disk that knows what changed (vmm.driver.DiskChanges is one)."""

    async def dirty(self) -> int: ...

    async def capture(
        self, *, freeze: Callable[[], Awaitable[None]], thaw: Callable[[], Awaitable[None]]
    ) -> Capture: ...

    async def accept(self) -> None: ...

    async def revert(self) -> None: ...


Commit = Callable[[Synced, int], Awaitable[None]]
"""Records a generation in the database, with the attachment's epoch: what was synced, and the bytes in use. It
raises StaleEpoch if the epoch is not the workspace's any more; any other error means try again later."""


class Syncer:
    """One VM's syncs, one at a time. `disk` must be tracking since before the guest could write to it."""

    def __init__(self, attached: Attached, disk: Disk, guest: Callable[[], Guest], *, commit: Commit) -> None:
        self.attached = attached
        self.last: Synced | None = None
        """The last sync that was committed."""
        self.trouble = ""
        """Empty, or why the last sync failed."""
        self._disk, self._guest, self._commit = disk, guest, commit
        self._lock = asyncio.Lock()
        self._committed = attached.attachment.generation

    async def sync(self) -> Synced:
        """Sync now; returns when it is durable and committed. Raises what failed; nothing is lost by it."""
        async with self._lock:
            return await self._noted(settle=False)

    async def settle(self) -> Synced:
        """Sync, and leave the guest frozen: nothing is written after it. For a VM that is stopped or sleeps next.

        The guest thaws by itself after 20 s of its own time; `resume` thaws it at once.
        """
        async with self._lock:
            await self._noted(settle=False)  # most of the work, with the guest running
            return await self._noted(settle=True)

    async def resume(self) -> None:
        """Thaw a settled guest."""
        await self._guest().thaw()

    async def run(self, interval: float) -> None:
        """Sync every `interval` seconds, for ever. StaleEpoch ends it: the VM must be stopped."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.sync()
            except StaleEpoch:
                raise
            except Exception as error:
                log.warning("workspace %s is not synced: %s", self.attached.attachment.workspace_id, error)

    async def _noted(self, *, settle: bool) -> Synced:
        try:
            self.last = await self._sync(settle)
        except Exception as error:
            self.trouble = str(error) or type(error).__name__
            raise
        self.trouble = ""
        return self.last

    async def _sync(self, settle: bool) -> Synced:
        begin = time.monotonic()
        guest = self._guest()
        await guest.flush()
        await self.attached.reach()
        quiet = self.attached.generation > 0 and await self._disk.dirty() <= (QUIET if self.last else 0)
        written = freeze_ms = 0
        if settle or not quiet:
            written, freeze_ms = await self._publish(guest, settle)
        synced = Synced(
            synced_at_ms=int(time.time() * 1000),
            bytes=written,
            duration_ms=round((time.monotonic() - begin) * 1000),
            freeze_ms=freeze_ms,
            generation=self.attached.generation,
        )
        await self._commit(synced, await self.attached.used_bytes())
        if synced.generation != self._committed:
            await self.attached.committed(synced.generation)
            self._committed = synced.generation
        return synced

    async def _publish(self, guest: Guest, settle: bool) -> tuple[int, int]:
        """The next generation; bytes written and ms frozen."""

        async def freeze() -> None:
            await guest.freeze(limit_s=FREEZE_LIMIT)

        async def thaw() -> None:
            if not settle:
                await guest.thaw()

        capture = await self._disk.capture(freeze=freeze, thaw=thaw)
        try:
            size = self.attached.size
            draft = await self.attached.begin(size)
            applied = await self.attached.work(lambda: capture.apply(draft, size), timeout=APPLY_TIMEOUT)
            await self.attached.publish(draft)
        except BaseException:
            await asyncio.shield(self._disk.revert())
            if settle:
                await guest.thaw()
            raise
        await self._disk.accept()
        return applied.data, capture.freeze_ms


async def recover(attached: Attached, apply: Callable[[Path], Applied]) -> int:
    """The next generation of a VM that died, from what its disk still holds on this host; its number.

    apply: writes the VM's own overlay over a copy of its base, durably; it blocks. The file system is as after a
    power cut: the next mount replays its journal.
    """
    draft = await attached.begin(attached.size, anew=True)
    await attached.work(lambda: apply(draft), timeout=APPLY_TIMEOUT)
    return await attached.publish(draft)
