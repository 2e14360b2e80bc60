"""Where the blocks of a volume lie, looked at from outside: is it there, does it work, is it the volume's own.

JuiceFS leaves an object in the store of each volume, which names it. Without a look at that, a disk that is not mounted
or a bucket of another service would be filled from the beginning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from mags.host.storage.config import StorageSettings
from mags.host.storage.errors import StorageRefused, StorageUnavailable
from mags.host.storage.juicefs import Volume
from mags.host.storage.s3 import S3, Bucket
from mags.host.storage.threads import Threads
from mags.protocol.ids import new_id

NAME = "juicefs_uuid"
TIMEOUT = 10.0


class Store(Protocol):
    """Errors: StorageRefused, StorageUnavailable."""

    async def make(self) -> None:
        """For a new volume. What is there is fine."""

    async def probe(self) -> None:
        """Say now what a sync would say later: a wrong key, say."""

    async def owner(self) -> str | None:
        """The id of the volume whose blocks these are."""

    async def sign(self, uuid: str) -> None:
        """Make them those of a new volume."""

    async def aclose(self) -> None: ...


def open_store(volume: Volume, threads: Threads) -> Store:
    return BucketStore(volume.settings) if volume.settings.kind == "s3" else DirectoryStore(volume, threads)


def require_own(found: str | None, volume: Volume, uuid: str) -> None:
    """Judge the store's owner: StorageUnavailable if the volume's blocks are not there, StorageRefused if another's
    are."""
    if found is None:
        raise StorageUnavailable(
            f"The blocks of the workspaces are not in {volume.bucket}: the store there is empty. Mount the disk, or "
            "put the store back. Nothing was changed."
        )
    if found != uuid:
        raise StorageRefused(
            f"The blocks in {volume.bucket} are of another volume than the metadata at "
            f"{volume.meta.partition('?')[0]}: one of both is wrong, or an old copy. Nothing was changed."
        )


class DirectoryStore:
    def __init__(self, volume: Volume, threads: Threads) -> None:
        self._blocks, self._threads = volume.blocks, threads
        self._name = volume.blocks / volume.settings.volume / NAME

    async def make(self) -> None:
        self._blocks.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def probe(self) -> None: ...

    async def owner(self) -> str | None:
        try:
            return await self._threads.run_within(TIMEOUT, lambda: _read(self._name))
        except OSError as error:
            raise StorageUnavailable(
                f"The blocks of the workspaces in {self._blocks} can't be read: {error.strerror}."
            ) from error

    async def sign(self, uuid: str) -> None:
        if await self.owner() != uuid:
            self._name.write_text(uuid)

    async def aclose(self) -> None: ...


def _read(path: Path) -> str | None:
    return path.read_text(errors="replace").strip() if path.exists() else None


class BucketStore:
    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        key = settings.secret_key.get_secret_value()
        self._s3 = S3(Bucket(settings.endpoint, settings.bucket, settings.access_key, key, settings.region))

    async def make(self) -> None:
        if not await self._s3.exists():
            await self._s3.create()

    async def probe(self) -> None:
        """Put, get and delete an object, as a sync will."""
        settings = self._settings
        if not await self._s3.exists():
            raise StorageUnavailable(
                f"There is no bucket {settings.bucket!r} at {settings.endpoint} any more, but the metadata is of a "
                "volume in it: put it back. Nothing was changed."
            )
        name = f"{settings.volume}-probe/{new_id()}"
        await self._s3.put(name, b"mags")
        if await self._s3.get(name) != b"mags":
            raise StorageRefused(f"The object store at {settings.endpoint} does not return what it was given.")
        await self._s3.delete(name)

    async def owner(self) -> str | None:
        found = await self._s3.find(f"{self._settings.volume}/{NAME}")
        return found.decode(errors="replace").strip() if found is not None else None

    async def sign(self, uuid: str) -> None:
        if await self.owner() != uuid:
            await self._s3.put(f"{self._settings.volume}/{NAME}", uuid.encode())

    async def aclose(self) -> None:
        await self._s3.aclose()
