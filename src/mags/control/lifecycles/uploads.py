"""The bytes of uploaded files: JetStream's object store (ADR-20), from which hosts read them too."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from tempfile import SpooledTemporaryFile
from typing import IO, cast

import nats.errors
from nats.js.api import ObjectStoreConfig, StorageType
from nats.js.errors import BadRequestError, BucketNotFoundError, NotFoundError, ObjectNotFoundError
from nats.js.errors import Error as JetStreamError
from sqlalchemy import select

from mags.control.lifecycles.world import World
from mags.control.models import File
from mags.protocol.errors import Problem

log = logging.getLogger("mags.control.uploads")

BUCKET = "mags-files"
STREAM, CHUNKS = f"OBJ_{BUCKET}", f"$O.{BUCKET}.C.{{}}"
"""Where the bucket is kept, and the subject of one file's chunks (ADR-20)."""
UNRECORDED = timedelta(hours=1)
"""How old bytes without a record must be to be nobody's."""


async def ensure_store(world: World) -> None:
    """Make the bucket unless it is there."""
    try:
        await world.jetstream.object_store(BUCKET)
    except (BucketNotFoundError, NotFoundError):
        try:
            await world.jetstream.create_object_store(
                bucket=BUCKET, config=ObjectStoreConfig(bucket=BUCKET, storage=StorageType.FILE)
            )
        except BadRequestError:  # another control was first
            await world.jetstream.object_store(BUCKET)


class _Source:
    """A file as the object store reads it. Once `cut`, its next read fails: the store takes back what it has kept of a
    file that can't be read, but not of one whose reader is cancelled."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = cast("SpooledTemporaryFile[bytes]", file)
        self.cut = False

    def readinto(self, buffer: bytearray) -> int:
        if self.cut:
            raise ValueError("Nobody wants the rest.")
        return self._file.readinto(buffer)


async def put(world: World, file_id: str, source: IO[bytes]) -> None:
    """Keep the bytes from the file's present position on. Problem(unavailable) when they can't be; of those, and when
    it is cancelled, none are left, or `sweep` finds them."""
    reading = _Source(source)
    try:
        store = await world.jetstream.object_store(BUCKET)
        putting = asyncio.ensure_future(store.put(file_id, reading))  # type: ignore[arg-type]
        try:
            await asyncio.shield(putting)
        except asyncio.CancelledError:
            reading.cut = True
            await asyncio.wait([putting])
            if not putting.cancelled() and putting.exception() is None:
                await remove(world, file_id)
            raise
    except (nats.errors.Error, JetStreamError, TimeoutError) as error:
        raise Problem("unavailable", "The file could not be stored; try again.") from error


async def sweep(world: World) -> None:
    """Remove the bytes of files that nobody has: their record was never made, or is gone and they could not be removed
    then; or their upload was cut off in the middle. A file that has just been put gets its record in a moment."""
    before = datetime.now(UTC) - UNRECORDED
    try:
        chunks = await world.jetstream.stream_info(STREAM, subjects_filter=CHUNKS.format(">"))
        store = await world.jetstream.object_store(BUCKET)
        try:
            stored = await store.list(ignore_deletes=True)
        except NotFoundError:  # it is empty
            stored = []
        whole = {CHUNKS.format(info.nuid) for info in stored}
        for subject in set(chunks.state.subjects or ()) - whole:
            await _sweep_chunks(world, subject, before)
    except NotFoundError:  # there is none
        return
    except (nats.errors.Error, JetStreamError, TimeoutError) as error:
        log.info("uploaded files can't be swept now: %s", error)
        return
    old = [info.name for info in stored if info.mtime and datetime.fromisoformat(info.mtime) < before]
    async with world.db.read() as session:
        known = set((await session.execute(select(File.id))).scalars())
    for file_id in old:
        if file_id not in known:
            log.info("uploaded file %s is nobody's; it is removed", file_id)
            try:
                await remove(world, file_id)
            except Problem as problem:
                log.info("%s", problem.message)


async def _sweep_chunks(world: World, subject: str, before: datetime) -> None:
    """Remove the chunks of a file that never became whole, unless the last of them came after that."""
    try:
        last = await world.jetstream.get_msg(STREAM, subject=subject, direct=True)
    except NotFoundError:  # just removed
        return
    if last.time is not None and last.time < before:
        log.info("an upload was cut off; its chunks (%s) are removed", subject)
        await world.jetstream.purge_stream(STREAM, subject=subject)


async def remove(world: World, file_id: str) -> None:
    """Repeatable."""
    try:
        store = await world.jetstream.object_store(BUCKET)
        await store.delete(file_id)
    except ObjectNotFoundError:
        pass
    except (nats.errors.Error, JetStreamError, TimeoutError) as error:
        raise Problem("unavailable", "The file could not be removed; try again.") from error
