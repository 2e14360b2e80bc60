"""Uploaded files on their way from the object store into a VM, before its script starts."""

from __future__ import annotations

import io
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO, cast

import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from mags.host.guest import Channel, Exec
from mags.protocol.errors import Problem
from mags.protocol.messages import FileReference

BUCKET = "mags-files"
"""Of JetStream's object store; an object's name is the file's id."""
CHUNK = 256 << 10
LINK = 'mkdir -p /uploads && for name; do ln -sfn "/root/$name" "/uploads/$name" || exit 1; done'


class Uploads:
    def __init__(self, client: Client, directory: Path) -> None:
        self._jetstream = client.jetstream()
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def put(self, channel: Channel, files: Sequence[FileReference]) -> None:
        """Each to /root/NAME, linked in /uploads. Raises Problem, GuestError, ChannelClosed."""
        names = [file.name for file in files]
        for name in names:
            if not name or "/" in name or name in (".", "..") or "\0" in name:
                raise Problem("invalid", f"{name!r} is no name of a file: upload it under another.")
        for file in files:
            with tempfile.TemporaryFile(dir=self._directory) as copy:
                await self._fetch(file, copy)
                copy.seek(0)
                await channel.write_file(f"/root/{file.name}", _chunks(copy), mode=0o644)
        process = await channel.exec(Exec(argv=("/bin/sh", "-c", LINK, "sh", *names)))
        try:
            while (piece := await process.next_output()) is not None:
                process.acknowledge(piece.stream, piece.offset + len(piece.data))
            if (await process.wait()).exit_code != 0:
                raise Problem("guest_failed", "The uploaded files could not be linked in /uploads.")
        finally:
            await process.release()

    async def _fetch(self, file: FileReference, copy: IO[bytes]) -> None:
        try:
            store = await self._jetstream.object_store(BUCKET)
            await store.get(file.file_id, writeinto=cast(io.BufferedIOBase, copy))
        except NotFoundError as error:
            raise Problem("not_found", f"The uploaded file {file.name!r} is gone: upload it again.") from error
        except (nats.errors.Error, JetStreamError, OSError, TimeoutError) as error:
            raise Problem("unavailable", f"The uploaded file {file.name!r} can't be read now: {error}") from error


async def _chunks(copy: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := copy.read(CHUNK):
        yield chunk
