"""A TCP connection from inside the VM, for `ssh -L` and `ssh -D` (channel "direct-tcpip", RFC 4254, 7.2)."""

from __future__ import annotations

import logging

import asyncssh

from mags.edge.ssh.access import Access
from mags.edge.ssh.channel import Flow
from mags.edge.tasks import Tasks
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from mags.protocol.messages import Open

log = logging.getLogger("mags.edge.ssh")

LOCAL = frozenset({"localhost", "127.0.0.1", "::1", ""})
LONGEST_HOST = 253


class Forward(Flow, asyncssh.SSHTCPSession[bytes]):
    """One connection, made by the guest: it reaches what programs in the VM reach, and nothing else."""

    def __init__(self, access: Access, tasks: Tasks, host: str, port: int) -> None:
        super().__init__(tasks)
        self._access = access
        self._host = "127.0.0.1" if host in LOCAL else host
        self._port = port

    def _wish(self, vm_id: str, user: str) -> Open:
        return Open(vm_id=vm_id, session_id=new_id(), kind="connect", host=self._host, port=self._port)

    async def _serve(self) -> None:
        try:
            async with await self._access.open(self._wish) as session:
                await self._carry(session)
                self._channel.write_eof()
        except Problem as problem:
            log.debug("%s:%d: %s", self._host, self._port, problem.message)  # TCP has no place for a sentence
        except Exception:
            log.exception("a forwarded connection failed")
        self._channel.close()
