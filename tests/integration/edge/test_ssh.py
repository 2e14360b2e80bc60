"""The SSH gateway with OpenSSH's own clients, to a scripted VM."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from mags.kit.process import Completed, run
from mags.protocol.edge import SshGrant
from mags.protocol.errors import Problem
from tests.integration.edge.conftest import World

TIMEOUT = 90.0


@dataclass
class Client:
    """OpenSSH with a key of its own that opens the sandbox "dev"."""

    world: World
    folder: Path
    public: str

    @property
    def options(self) -> list[str]:
        known = self.folder / "known_hosts"
        assert self.world.edge.ssh is not None
        known.write_text(f"[127.0.0.1]:{self.world.edge.ssh.port} {self.world.edge.ssh.host_key}\n")
        return [
            "-F", "none", "-i", str(self.folder / "key"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR",
        ]  # fmt: skip

    async def ssh(self, *words: str, user: str = "dev", check: bool = False, stdin: bytes = b"") -> Completed:
        assert self.world.edge.ssh is not None
        port = str(self.world.edge.ssh.port)
        argv = ["ssh", *self.options, "-p", port, f"{user}@127.0.0.1", *words]
        return await run(argv, timeout=TIMEOUT, check=check, stdin=stdin)


@pytest.fixture
async def client(world: World) -> Client:
    folder = world.folder / "client"
    folder.mkdir()
    key = asyncssh.generate_private_key("ssh-ed25519")
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_bytes(key.export_private_key("openssh"))
    public = " ".join(key.export_public_key().decode().split()[:2])
    await world.start()
    world.host.vm("v1", {})
    grant(world, public)
    return Client(world, folder, public)


def grant(world: World, public: str, user: str = "dev", port: int | None = None, **more: Any) -> None:
    more.setdefault("guest_user", "root")
    world.control.keys[user, port] = (
        {public},
        SshGrant(job_id="j1", vm_id="v1", host_id="h1", owner="o1", name=user, **more),
    )


async def test_a_command_gives_its_output_apart_from_its_errors_and_its_status(client: Client) -> None:
    done = await client.ssh("echo out; echo err >&2; exit 7")

    assert (done.stdout, done.stderr, done.status) == (b"out\n", b"err\n", 7)


async def test_input_reaches_the_command_whole(client: Client) -> None:
    body = bytes(range(256)) * 8000

    done = await client.ssh("sha256sum; cat /dev/null", stdin=body)
    back = await client.ssh("cat", stdin=body)

    assert done.status == back.status == 0
    assert back.stdout == body
