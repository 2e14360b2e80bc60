"""The storage engine of a host: the volume formatted and mounted, its health, its workspaces.

engine = await Engine.open(settings, directory, host_id=...)
attached = await engine.workspaces.attach(...)
engine.status                    # "ok", or a sentence about the trouble
await engine.close(unmount=...)
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec

from mags.host.storage import juicefs, layout, metadata, stores
from mags.host.storage.config import StorageSettings
from mags.host.storage.errors import StorageError, StorageRefused, StorageUnavailable
from mags.host.storage.mount import Mount
from mags.host.storage.threads import Threads
from mags.host.storage.workspaces import Workspaces
from mags.kit.files import write_atomic
from mags.kit.jumps import MINUTE, Jumps
from mags.protocol.ids import new_id

log = logging.getLogger("mags.storage")

THREADS = 16
HEALTH_INTERVAL, PROBE_TIMEOUT = 5.0, 10.0
BEAT_INTERVAL = 60.0


class Known(msgspec.Struct):
    """The volume that this host has had."""

    uuid: str
    storage: str
    bucket: str


class Engine:
    """Made by `open`; `close` it. `status` is for presence, `workspaces` for machines."""

    def __init__(self, settings: StorageSettings, directory: Path, host_id: str) -> None:
        self.settings = settings
        self.volume = juicefs.Volume(settings, directory)
        self.mount = Mount(self.volume, directory / "mnt")
        self._formatted = directory / "formatted"
        """Is there once the volume was: a host that has had one must not make another. Names it (`Known`)."""
        self._threads = Threads(THREADS, "volume")
        self._store = stores.open_store(self.volume, self._threads)
        self._uuid = ""
        self._trouble = ""
        self._lost = ""
        """Why the store can't be trusted, though it answers."""
        self._tasks: list[asyncio.Task[None]] = []
        self.workspaces = Workspaces(
            self.mount.point,
            self._threads,
            host_id=host_id,
            scratch=directory / "scratch",
            clone_tree=self._clone,
            require=self._require,
        )

    @classmethod
    async def open(cls, settings: StorageSettings, directory: Path, *, host_id: str) -> Engine:
        """Format (once), mount (or take over), and start watching.

        directory: local state of ours; made, mode 0711.
        StorageRefused when the settings cannot work, StorageUnavailable when a service is away.
        """
        if settings.kind == "off":
            raise StorageRefused("Workspaces are switched off (MAGS_HOST_STORAGE_KIND=off).")
        directory.mkdir(mode=layout.DIRECTORY_MODE, parents=True, exist_ok=True)
        directory.chmod(layout.DIRECTORY_MODE)
        engine = cls(settings, directory, host_id)
        try:
            await engine._start()
        except BaseException:
            # VMs may read from a mount that is there, and may go on doing so.
            await engine.close(unmount=False)
            raise
        return engine

    @property
    def status(self) -> str:
        """ "ok", or what is wrong, in a sentence."""
        return self.mount.trouble or self._trouble or "ok"

    async def _start(self) -> None:
        if self._formatted.exists():
            metadata.require_file(self.volume.meta)
        await metadata.reach(self.volume.meta)
        found = await juicefs.look(self.volume)
        self._require_known(found)
        if found is None:
            found = await self._make()
        else:
            juicefs.require_same(self.volume, found)
            await self._store.probe()
        stores.require_own(await self._store.owner(), self.volume, found.uuid)
        await juicefs.settle(self.volume, found)
        self._uuid = found.uuid
        known = Known(found.uuid, self.volume.storage, self.volume.bucket)
        write_atomic(self._formatted, msgspec.json.encode(known))
        await self.mount.start()
        self._tasks = [
            asyncio.create_task(self._watch(), name="storage-health"),
            asyncio.create_task(self._beat(), name="storage-leases"),
            asyncio.create_task(self._collect_regularly(), name="storage-collect"),
        ]

    async def _make(self) -> juicefs.Format:
        """Make the volume; another host may do so at the same time."""
        await self._store.make()
        await self._store.probe()
        try:
            await juicefs.format_volume(self.volume)
        except StorageUnavailable:
            if (found := await juicefs.look(self.volume)) is None:
                raise
        else:
            found = await juicefs.look(self.volume)
            assert found is not None
        juicefs.require_same(self.volume, found)
        # Both leave their name in the store, and one of them its volume in the metadata.
        await self._store.sign(found.uuid)
        return found

    def _require_known(self, found: juicefs.Format | None) -> None:
        """An error if this host has had another volume: its workspaces would be gone without a word."""
        try:
            known = msgspec.json.decode(self._formatted.read_bytes(), type=Known)
        except (FileNotFoundError, msgspec.DecodeError):
            return
        where = self.volume.meta.partition("?")[0]
        had = f"This host's workspaces are in the volume in {known.bucket}, but the metadata at {where}"
        done = (
            "Nothing was changed. Put MAGS_HOST_STORAGE_META_URL, or the metadata, back; if the workspaces are not "
            f"needed here any more, remove {self._formatted}."
        )
        if found is None:
            raise StorageUnavailable(f"{had} knows no volume. {done}")
        if found.uuid != known.uuid:
            raise StorageRefused(f"{had} is of the volume in {found.bucket}. {done}")

    async def close(self, *, unmount: bool) -> None:
        """Stop. `unmount=False` leaves the mount to VMs that go on reading it, and to our next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await (self.mount.stop() if unmount else self.mount.leave())
        await self._store.aclose()
        self._threads.close()

    async def collect(self) -> None:
        """Sweep workspaces and free the blocks that nothing refers to."""
        await self.workspaces.collect()
        await juicefs.collect(self.volume)

    async def check(self) -> str:
        """Ask every part whether it works, now: empty, or what is wrong."""
        try:
            metadata.require_file(self.volume.meta)
            await self._check_store()
            try:
                # A name that no cache can know: the answer comes from the metadata engine.
                probe = self.mount.point / f".probe-{new_id()}"
                await self._threads.run_within(PROBE_TIMEOUT, probe.exists)
            except (OSError, StorageUnavailable):
                await metadata.reach(self.volume.meta)  # says more, if it is that
                raise
        except StorageError as error:
            return str(error)
        except OSError as error:
            return f"The volume of the workspaces does not work ({error.strerror}): is its metadata engine up?"
        return ""

    async def _check_store(self) -> None:
        """What was found the last time stands while the store does not answer."""
        owner = await self._store.owner()
        self._lost = ""
        try:
            stores.require_own(owner, self.volume, self._uuid)
        except StorageError as error:
            self._lost = str(error)
            raise

    def _require(self) -> None:
        """StorageUnavailable where what is written would be lost, or has lost what it refers to. Blocks."""
        metadata.require_file(self.volume.meta)
        if self._lost:
            raise StorageUnavailable(self._lost)

    async def _clone(self, source: Path, target: Path) -> None:
        await juicefs.clone(self.volume, source, target)

    async def _watch(self) -> None:
        while True:
            trouble = await self.check()
            if trouble != self._trouble:
                (log.error if trouble else log.info)("storage: %s", trouble or "ok again")
            self._trouble = trouble
            await asyncio.sleep(HEALTH_INTERVAL)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_INTERVAL)
            try:
                await self.workspaces.beat()
            except (OSError, StorageUnavailable) as error:
                log.warning("leases could not be renewed: %s", error)

    async def _collect_regularly(self) -> None:
        clock = Jumps()
        while True:
            clock.last()
            await asyncio.sleep(self.settings.collect_interval_s)
            if abs(clock.last() or 0.0) > MINUTE:
                # JuiceFS spares blocks that are young by the clock: those that are just being written.
                log.warning("the clock was set: garbage is collected another time")
                continue
            try:
                await self.collect()
            except (OSError, StorageError) as error:
                log.warning("garbage could not be collected: %s", error)


async def unmount(settings: StorageSettings, directory: Path) -> None:
    """End what an engine has left there that can't be opened now. Harmless if there is nothing."""
    await Mount(juicefs.Volume(settings, directory), directory / "mnt").stop()
