# Made from async_sandbox.py by `./dev fmt`; edit that.
"""One VM as an object: what `with m.sandbox() as sb` gives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from mags.sdk import types

if TYPE_CHECKING:
    from mags.sdk.client import Mags
    from mags.sdk.process import Process


class Sandbox:
    """`id` is the request id of its job, `name` its workspace."""

    def __init__(self, client: Mags, request_id: str, name: str | None = None) -> None:
        self.id, self.name = request_id, name
        self._client = client

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 60,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        stdin: str | None = None,
    ) -> types.ExecResult:
        """Run one command to its end. See `Mags.exec`."""
        return self._client.exec(
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
    ) -> Process:
        """Start a command and talk to it while it runs. See `Mags.exec_stream`."""
        return self._client.exec_stream(
            self.id, command, pty=pty, environment=environment, workdir=workdir, user=user, timeout=timeout
        )

    def read_file(self, path: str) -> bytes:
        return self._client.read_file(self.id, path)

    def write_file(
        self, path: str, content: bytes | str | os.PathLike[str] | BinaryIO, *, mode: int | None = None
    ) -> None:
        self._client.write_file(self.id, path, content, mode=mode)

    def list_files(self, path: str = "/root") -> list[types.Entry]:
        return self._client.list_files(self.id, path)

    def delete_file(self, path: str, *, recursive: bool = False) -> None:
        self._client.delete_file(self.id, path, recursive=recursive)

    def url(self, port: int = 8080) -> str:
        """The public URL of a port, opened."""
        return self._client.url(self.id, port=port)["url"]

    def status(self) -> types.Job:
        return self._client.status(self.id)

    def sleep(self) -> None:
        self._client.sleep(self.id)

    def wake(self) -> None:
        self._client.wake(self.id)

    def sync(self) -> types.Synced:
        return self._client.sync(self.id)

    def stop(self) -> None:
        """End the VM. Leaving the `with` block does it too."""
        self._client.stop(self.id)
