"""The other end of a QEMU's monitor, in a test's hands."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from mags.host.vmm.qemu.qmp import Qmp


class Qemu:
    """The other end: reads commands, writes lines."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._pending = b""

    async def command(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._pending:
            self._pending += await loop.sock_recv(self.socket, 65536)
        line, self._pending = self._pending.split(b"\n", 1)
        found: dict[str, Any] = json.loads(line)
        return found

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def say(self, **message: object) -> None:
        await self.write(json.dumps(message).encode() + b"\r\n")

    async def answer(self, command: str, value: object) -> None:
        """Wait for a command, which must be this one, and answer it."""
        asked = await self.command()
        assert asked["execute"] == command
        await self.say(id=asked["id"], **{"return": value})


def monitored() -> tuple[Qmp, Qemu]:
    """A client and its other end, already connected. To be closed by the caller."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    return Qmp(ours), Qemu(theirs)
