"""One VM as an object: what `async with m.sandbox() as sb` gives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from mags.sdk import types

if TYPE_CHECKING:
    from mags.sdk.async_client import AsyncMags
    from mags.sdk.async_process import AsyncProcess


class AsyncSandbox:
    """`id` is the request id of its job, `name` its workspace."""

    def __init__(self, client: AsyncMags, request_id: str, name: str | None = None) -> None:
        self.id, self.name = request_id, name
        self._client = client

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 60,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        stdin: str | None = None,
    ) -> types.ExecResult:
        """Run one command to its end. See `AsyncMags.exec`."""
        return await self._client.exec(
            self.id, command, timeout=timeout, environment=environment, workdir=workdir, user=user, stdin=stdin
        )

    def start(
        self,
        command: str | Sequence[str] | None = None,
        *,
        pty: tuple[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
    ) -> AsyncProcess:
        """Start a command and talk to it while it runs. See `AsyncMags.exec_stream`."""
        return self._client.exec_stream(
            self.id, command, pty=pty, environment=environment, workdir=workdir, user=user, timeout=timeout
        )

    async def read_file(self, path: str) -> bytes:
        return await self._client.read_file(self.id, path)

    async def write_file(
        self, path: str, content: bytes | str | os.PathLike[str] | BinaryIO, *, mode: int | None = None
    ) -> None:
        await self._client.write_file(self.id, path, content, mode=mode)

    async def list_files(self, path: str = "/root") -> list[types.Entry]:
        return await self._client.list_files(self.id, path)

    async def delete_file(self, path: str, *, recursive: bool = False) -> None:
        await self._client.delete_file(self.id, path, recursive=recursive)

    async def url(self, port: int = 8080) -> str:
        """The public URL of a port, opened."""
        return (await self._client.url(self.id, port=port))["url"]

    async def status(self) -> types.Job:
        return await self._client.status(self.id)

    async def sleep(self) -> None:
        await self._client.sleep(self.id)

    async def wake(self) -> None:
        await self._client.wake(self.id)

    async def sync(self) -> types.Synced:
        return await self._client.sync(self.id)

    async def stop(self) -> None:
        """End the VM. Leaving the `async with` block does it too."""
        await self._client.stop(self.id)
