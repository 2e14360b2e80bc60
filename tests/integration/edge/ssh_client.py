"""OpenSSH's clients with a key of their own that opens the sandbox "dev" (VM v1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from mags.kit.process import Completed, run
from mags.protocol.edge import SshGrant
from tests.integration.edge.world import World

TIMEOUT = 90.0


@dataclass
class Client:
    world: World
    folder: Path
    key: asyncssh.SSHKey

    @property
    def public(self) -> str:
        return public_line(self.key)

    @property
    def port(self) -> int:
        assert self.world.edge.ssh is not None
        return self.world.edge.ssh.port

    @property
    def options(self) -> list[str]:
        """Strict about the host key, silent, never asking."""
        assert self.world.edge.ssh is not None
        known = self.folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:* {self.world.edge.ssh.host_key}\n")
        return [
            "-F", "none", "-i", str(self.folder / "key"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR",
        ]  # fmt: skip

    async def ssh(
        self, *words: str, user: str = "dev", port: int = 0, options: tuple[str, ...] = (), stdin: bytes = b""
    ) -> Completed:
        argv = ["ssh", *self.options, *options, "-p", str(port or self.port), f"{user}@127.0.0.1", *words]
        return await run(argv, timeout=TIMEOUT, check=False, stdin=stdin)

    async def run(self, program: str, *words: str) -> Completed:
        """scp or sftp, which spell the port with a capital letter."""
        return await run([program, *self.options, "-P", str(self.port), *words], timeout=TIMEOUT, check=False)

    def grant(self, user: str = "dev", port: int | None = None, **more: Any) -> None:
        """Let this key open v1 under `user`."""
        values: dict[str, Any] = {"job_id": "j1", "vm_id": "v1", "host_id": "h1", "owner": "o1", "name": user, **more}
        self.world.control.keys[user, port] = ({self.public}, SshGrant(**values))


def make_client(world: World, name: str = "client") -> Client:
    """With a new key; it opens nothing yet."""
    folder = world.folder / name
    folder.mkdir()
    client = Client(world, folder, asyncssh.generate_private_key("ssh-ed25519"))
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_bytes(client.key.export_private_key("openssh"))
    return client


def public_line(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])
