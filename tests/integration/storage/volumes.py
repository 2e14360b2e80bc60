"""What the tests of volumes share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mags.host.storage.config import StorageSettings
from mags.host.storage.engine import Engine
from mags.host.storage.s3 import Bucket

OpenEngine = Callable[..., Awaitable[Engine]]


async def until(true: Callable[[], bool], timeout: float = 60.0) -> None:
    """Wait for something; TimeoutError after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.05)


def bucket_of(settings: StorageSettings) -> Bucket:
    """The bucket of S3 settings."""
    return Bucket(settings.endpoint, settings.bucket, settings.access_key, settings.secret_key.get_secret_value())
