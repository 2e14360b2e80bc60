"""The bytes of uploaded files: JetStream's object store (ADR-20), from which hosts read them too."""

from __future__ import annotations

from tempfile import SpooledTemporaryFile
from typing import IO, cast

import nats.errors
from nats.js.api import ObjectStoreConfig, StorageType
from nats.js.errors import BadRequestError, BucketNotFoundError, NotFoundError, ObjectNotFoundError
from nats.js.errors import Error as JetStreamError

from mags.control.lifecycles.world import World
from mags.protocol.errors import Problem

BUCKET = "mags-files"


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


async def remove(world: World, file_id: str) -> None:
    """Repeatable."""
    try:
        store = await world.jetstream.object_store(BUCKET)
        await store.delete(file_id)
    except ObjectNotFoundError:
        pass
    except (nats.errors.Error, JetStreamError, TimeoutError) as error:
        raise Problem("unavailable", "The file could not be removed; try again.") from error
