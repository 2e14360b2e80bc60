"""Workspaces as tar files, as streams for sessions. No VM takes part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from mags.host.attachments import Attachments
from mags.host.machines.streams import PlainStream, Stream
from mags.host.storage.layout import Manifest
from mags.protocol.messages import Archive, SessionEnd


class ExportStream(PlainStream):
    """The tar file; its first bytes are there before the session is, so that what can't be exported is refused."""

    def __init__(self, first: bytes, chunks: AsyncIterator[bytes]) -> None:
        self._first, self._chunks = first, chunks

    async def read(self) -> tuple[int, bytes] | None:
        chunk, self._first = self._first or await anext(self._chunks, b""), b""
        return (1, chunk) if chunk else None


class ImportStream(PlainStream):
    """A workspace being made: that it is made is the stream's end."""

    def __init__(self, made: asyncio.Task[Manifest]) -> None:
        self._made = made

    async def finish(self) -> SessionEnd:
        made = await self._made
        details = {"disk_gb": made.disk_gb, "image": made.image, "size_bytes": made.size_bytes}
        return SessionEnd(exit_code=0, details=details)


@asynccontextmanager
async def open_archive(
    attachments: Attachments, wish: Archive, chunks: AsyncIterator[bytes]
) -> AsyncGenerator[Stream, None]:
    """The archive out, or in from `chunks`; when the context ends, nothing of it goes on. Raises Problem."""
    if wish.direction == "export":
        async with aclosing(attachments.export(wish)) as out:
            yield ExportStream(await anext(out, b""), out)
        return
    making = asyncio.create_task(attachments.bring(wish, chunks), name=f"import-{wish.workspace_id}")
    try:
        yield ImportStream(making)
    finally:
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
