"""Workspaces out of the volume and into it, as tar files (`archives`), while VMs go on."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

from mags.host.storage import archives
from mags.host.storage.bridges import Sink, Source
from mags.host.storage.errors import GenerationMissing, StorageError
from mags.host.storage.layout import Lease, Manifest
from mags.host.storage.workspaces import Workspaces
from mags.protocol.ids import new_id

BRING_TIMEOUT = 6 * 3600.0
"""Seconds that a tar file may take to come in."""
ENDING = 60.0
"""Seconds that an import which is called off may take to remove what it has made."""


async def export(
    workspaces: Workspaces, workspace_id: str, generation: int | None = None
) -> AsyncGenerator[bytes, None]:
    """A workspace as a tar file (`archives`): its disk as of a generation (the newest), and /jfs as it is."""
    generations, reader = workspaces.of(workspace_id), new_id()

    def hold() -> tuple[Manifest, Path | None]:
        manifest = generations.manifest()
        if manifest is not None:
            number = manifest.generation if generation is None else generation
            if number and number < manifest.generation and number not in generations.numbers():
                number = manifest.generation  # synced meanwhile
            generations.lease(Lease(vm_id=reader, host_id=workspaces.host_id, base=number, parent=number))
            if not generations.deleted:  # looked for under the lease
                return manifest, generations.path(number) if number else None
            generations.end_lease(reader)
        raise GenerationMissing(f"There is no workspace {workspace_id} on this volume.")

    manifest, image = await workspaces.work(hold)
    try:
        sink = Sink()
        work = sink.chunks(lambda: archives.write(sink, manifest, image, generations.jfs), workspaces.start)
        async with aclosing(work) as written:
            async for chunk in written:
                yield chunk
    finally:
        await workspaces.work(lambda: generations.end_lease(reader))


async def bring(
    workspaces: Workspaces, workspace_id: str, chunks: AsyncIterator[bytes], *, owner: str, name: str, limit: int
) -> Manifest:
    """Make a new workspace of a tar file; its generation is 1 and its epoch 0.

    limit: bytes of everything. BadArchive, StorageUnavailable; nothing is left then, nor when it is cancelled.
    """
    generations, source, writer = workspaces.of(workspace_id), Source(chunks), new_id()

    def work() -> Manifest:
        if generations.directory.exists():
            raise StorageError(f"The workspace {workspace_id} exists.")
        generations.make()
        try:
            generations.lease(Lease(vm_id=writer, host_id=workspaces.host_id))
            draft = generations.new_draft(writer)
            draft.touch(mode=0o600)
            read = archives.read(source, draft, generations.jfs, limit=limit)
            number = generations.publish(draft, above=0)
            manifest = Manifest(
                id=workspace_id,
                owner=owner,
                name=name,
                disk_gb=read.disk_gb,
                image=read.image,
                generation=number,
                synced_ms=time.time_ns() // 1_000_000,
                size_bytes=generations.used_bytes(number),
            )
            generations.write_manifest(manifest)
            generations.end_lease(writer)
            return manifest
        except BaseException:
            shutil.rmtree(generations.directory, ignore_errors=True)
            raise

    writing = asyncio.create_task(workspaces.work(work, timeout=BRING_TIMEOUT))
    try:
        return await asyncio.shield(writing)
    finally:
        source.close()
        await asyncio.wait({writing}, timeout=ENDING)
        if writing.done() and not writing.cancelled():
            writing.exception()  # an import that was called off fails, and nobody wants to know how
