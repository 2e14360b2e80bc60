"""The synced workspaces of a host: the storage engine, the exports of /jfs, and who has which.

The engine is opened in the background and again while a service is away: a host without its storage still runs VMs,
and says in its presence what is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from mags.host.attachments.hearing import Hearing
from mags.host.attachments.problems import as_problems
from mags.host.attachments.workspace import GUEST_JFS_PORT, Publish, Workspace
from mags.host.jfs import Exports
from mags.host.storage import transfers
from mags.host.storage.config import StorageSettings
from mags.host.storage.engine import Engine, unmount
from mags.host.storage.errors import StorageError, StorageRefused
from mags.host.storage.layout import Manifest
from mags.protocol.errors import Problem
from mags.protocol.messages import Archive, Attachment, Stored, StoredList, StoredWorkspace

log = logging.getLogger("mags.attachments")

RETRY = 5.0
"""Seconds between two attempts to open the storage."""
BRIDGED, LOOK = 10.0, 0.1
"""Seconds that an attachment waits for a storage in trouble, and between two looks."""
OPENING = 30.0
"""Seconds that an attachment waits for a storage that is being opened."""


class Attachments:
    """Made by `open`."""

    def __init__(self, settings: StorageSettings, directory: Path, host_id: str, exports: Exports) -> None:
        self._settings, self._directory, self._host_id, self._exports = settings, directory, host_id, exports
        self.hearing = Hearing()
        self.unmount = False
        """Whether the volume is unmounted at the end: no VM goes on that needs it."""
        self._engine: Engine | None = None
        self._opened = asyncio.Event()
        self._trouble = "The storage of workspaces is being opened." if settings.kind != "off" else ""

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: StorageSettings, directory: Path, *, host_id: str) -> AsyncIterator[Attachments]:
        """For the time of the block. directory: local state, of this host alone.

        The mount stays behind for VMs that go on and the next host program, unless `unmount` is set.
        """
        exports = await _open_exports(directory)
        own = cls(settings, directory, host_id, exports)
        opener = asyncio.create_task(own._open(), name="storage-open")
        try:
            yield own
        finally:
            opener.cancel()
            await asyncio.gather(opener, return_exceptions=True)
            await exports.close()
            if own._engine is not None:
                await own._engine.close(unmount=own.unmount)
            elif own.unmount and settings.kind != "off":
                await unmount(settings, directory)

    @property
    def status(self) -> str:
        """Empty: switched off. "ok", or a sentence about the trouble (messages.Presence.storage)."""
        return self._engine.status if self._engine is not None else self._trouble

    @property
    def services(self) -> Mapping[int, int]:
        """TCP ports of a guest's gateway -> our ports (for NamespacePool.open)."""
        return {GUEST_JFS_PORT: self._exports.port}

    @property
    def engine(self) -> Engine:
        """Problem `not_available` or `unavailable` when there is none."""
        if self._engine is None:
            if self._settings.kind == "off":
                raise Problem("not_available", "This host keeps no synced workspaces: use no_sync.")
            raise Problem("unavailable", self._trouble)
        return self._engine

    async def attach(
        self, attachment: Attachment, *, vm_id: str, owner: str, name: str, image: str, publish: Publish
    ) -> Workspace:
        """Give a workspace to a VM; the same VM again goes on where it was. Raises Problem."""
        engine = await self._ready()
        await self._bridge(engine)
        with as_problems():
            attached = await engine.workspaces.attach(attachment, vm_id=vm_id, owner=owner, name=name, image=image)
            return Workspace(attached, self._exports, publish, self.hearing, interval=self._settings.sync_interval_s)

    async def drop(self, workspace_id: str) -> None:
        """Remove the data of a deleted workspace. Repeatable."""
        engine = await self._ready()
        with as_problems():
            await engine.workspaces.delete(workspace_id)

    async def stored(self, wish: Stored) -> StoredList:
        """What is on the volume, whoever made it. Raises Problem."""
        engine = await self._ready()
        with as_problems():
            found = await engine.workspaces.manifests(after=wish.after, limit=max(1, wish.limit))
        return StoredList(
            workspaces=[
                StoredWorkspace(
                    id=manifest.id,
                    owner=manifest.owner,
                    name=manifest.name,
                    disk_gb=manifest.disk_gb,
                    generation=manifest.generation,
                    epoch=manifest.epoch,
                    size_bytes=manifest.size_bytes,
                    synced_ms=manifest.synced_ms,
                    image=manifest.image,
                )
                for manifest in found
            ]
        )

    async def export(self, wish: Archive) -> AsyncGenerator[bytes, None]:
        """The workspace as a tar file. Problem, `not_found` for one that is not on the volume."""
        engine = await self._ready()
        with as_problems():
            async with aclosing(transfers.export(engine.workspaces, wish.workspace_id, wish.generation)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def bring(self, wish: Archive, chunks: AsyncIterator[bytes]) -> Manifest:
        """Make the workspace of a tar file.

        Problem, `invalid` for a bad archive; nothing is left then.
        """
        engine = await self._ready()
        with as_problems():
            return await transfers.bring(
                engine.workspaces, wish.workspace_id, chunks, owner=wish.owner, name=wish.name, limit=wish.limit
            )

    async def _ready(self) -> Engine:
        if self._settings.kind != "off":
            try:
                async with asyncio.timeout(OPENING):
                    await self._opened.wait()
            except TimeoutError:
                pass
        return self.engine

    async def _bridge(self, engine: Engine) -> None:
        """Wait a little for a storage that is in trouble. Problem, in the words of its status, if that lasts."""
        end = time.monotonic() + BRIDGED
        while (trouble := engine.status) != "ok":
            if time.monotonic() >= end:
                raise Problem("unavailable", trouble)
            await asyncio.sleep(LOOK)

    async def _open(self) -> None:
        while self._settings.kind != "off":
            try:
                self._engine = await Engine.open(self._settings, self._directory, host_id=self._host_id)
                self._opened.set()
                return
            except (StorageError, OSError) as error:
                if str(error) != self._trouble:
                    log.error("no synced workspaces: %s", error)
                self._trouble = str(error)
                if isinstance(error, StorageRefused):
                    return  # only other settings can help
            await asyncio.sleep(RETRY)


async def _open_exports(directory: Path) -> Exports:
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    return await Exports.open(directory)
