"""The bytes of uploaded files: JetStream's object store (ADR-20), from which hosts read them too."""

from __future__ import annotations

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


async def put(world: World, file_id: str, source: IO[bytes]) -> None:
    """Keep the bytes from the file's present position on. Problem(unavailable) when they can't be."""
    try:
        store = await world.jetstream.object_store(BUCKET)
        await store.put(file_id, cast("SpooledTemporaryFile[bytes]", source))  # type: ignore[arg-type]
    except (nats.errors.Error, JetStreamError, TimeoutError) as error:
        raise Problem("unavailable", "The file could not be stored; try again.") from error


async def sweep(world: World) -> None:
    """Remove the bytes of files that nobody has: their record was never made, or is gone and they could not be removed
    then. A file that has just been put gets its record in a moment."""
    before = datetime.now(UTC) - UNRECORDED
    try:
        store = await world.jetstream.object_store(BUCKET)
        stored = await store.list(ignore_deletes=True)
    except NotFoundError:  # there is none
        return
    except (nats.errors.Error, JetStreamError, TimeoutError) as error:
        log.info("uploaded files can't be listed now: %s", error)
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


async def remove(world: World, file_id: str) -> None:
    """Repeatable."""
    try:
        store = await world.jetstream.object_store(BUCKET)
        await store.delete(file_id)
    except ObjectNotFoundError:
        pass
    except (nats.errors.Error, JetStreamError, TimeoutError) as error:
        raise Problem("unavailable", "The file could not be removed; try again.") from error
