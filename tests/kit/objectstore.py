"""SeaweedFS for tests: settings of new volumes on it, and what lies in their buckets."""

from __future__ import annotations

import os
import signal

from mags.host.storage.config import StorageSettings
from mags.host.storage.s3 import S3, Bucket
from mags.host.storage.seaweedfs import SeaweedFS
from mags.protocol.ids import new_id


def new_volume(server: SeaweedFS) -> StorageSettings:
    """A new volume in a bucket of its own, impatient with the store."""
    name = f"t{new_id()[:8]}"
    return StorageSettings.model_validate(
        {
            "kind": "s3",
            "volume": name,
            "bucket": name,
            "endpoint": server.endpoint,
            "access_key": server.access_key,
            "secret_key": server.secret_key,
            "put_timeout_s": 3,
            "get_timeout_s": 3,
        }
    )


async def cut(server: SeaweedFS) -> None:
    """Stop it at once, as in a crash: an orderly end waits for its own parts, for up to ten seconds."""
    if server.pid is not None:
        os.kill(server.pid, signal.SIGKILL)
    await server.stop()


def bucket_of(settings: StorageSettings) -> Bucket:
    """The bucket of S3 settings."""
    return Bucket(settings.endpoint, settings.bucket, settings.access_key, settings.secret_key.get_secret_value())


async def count_blocks(settings: StorageSettings) -> int:
    """The blocks of a volume, as objects of its bucket."""
    client = S3(bucket_of(settings))
    try:
        return len([name async for name in client.keys(f"{settings.volume}/chunks/")])
    finally:
        await client.aclose()
