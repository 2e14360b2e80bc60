"""What one authenticated connection may open, asked of control again whenever that may have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mags.edge.directory import ControlAway, Directory
from mags.hostclient import HostClient, Session
from mags.protocol.edge import SshGrant
from mags.protocol.errors import Problem
from mags.protocol.messages import Open

WAKE_TIMEOUT = 60.0
"""Seconds in which a host opens a session, waking included."""
STARTING_PATIENCE, PAUSE = 20.0, 0.3
"""Seconds that a session waits for a VM that is being placed or whose host is away, and between two questions."""
DENIED = ("forbidden", "not_found", "unauthorized")
"""Codes with which control does not let a client in at all."""


class Access:
    """A user name, a key and a port, and the VM that control grants them."""

    def __init__(self, directory: Directory, hosts: HostClient, user: str, public_key: str, port: int | None) -> None:
        self._directory, self._hosts = directory, hosts
        self._user, self._public_key, self._port = user, public_key, port
        self._grant: SshGrant | Problem = Problem("forbidden", "This connection has not logged in.")

    @property
    def vm_id(self) -> str | None:
        return self._grant.vm_id if isinstance(self._grant, SshGrant) else None

    @property
    def host_id(self) -> str | None:
        return self._grant.host_id if isinstance(self._grant, SshGrant) else None

    async def refresh(self) -> bool:
        """Ask control. False: the key opens nothing (any more). ControlAway when it does not answer."""
        try:
            self._grant = await self._directory.ssh_grant(self._user, self._public_key, self._port)
        except ControlAway:
            raise
        except Problem as problem:
            self._grant = problem
            return problem.code not in DENIED
        return True

    async def open(self, wish: Callable[[str, str], Open]) -> Session:
        """A session for `wish(vm_id, guest_user)`. The VM may be starting, or have moved since the login."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STARTING_PATIENCE
        moved = False
        while True:
            grant = self._grant
            try:
                if isinstance(grant, Problem):
                    raise grant
                wanted = wish(grant.vm_id, grant.guest_user)
                return await Session.open(self._hosts, grant.host_id, wanted, timeout=WAKE_TIMEOUT)
            except Problem as problem:
                starting = problem.code == "unavailable" and loop.time() < deadline
                if not starting and (moved or isinstance(grant, Problem) or problem.code not in ("not_found", "gone")):
                    raise
                moved = moved or not starting
                if starting:
                    await asyncio.sleep(PAUSE)
                if not await self.refresh():
                    raise Problem("forbidden", "This key opens nothing here any more.") from problem
