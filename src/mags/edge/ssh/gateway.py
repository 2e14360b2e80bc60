"""The gateway's listeners and limits: the common port, the VMs' own ports, who is connected."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import asyncssh
from nats.aio.msg import Msg

from mags import __version__
from mags.edge.activity import Activity
from mags.edge.config import Settings
from mags.edge.directory import Directory
from mags.edge.ssh import keys
from mags.edge.ssh.access import Access
from mags.edge.ssh.connection import Connection
from mags.edge.tasks import Tasks
from mags.hostclient import HostClient
from mags.protocol import edge, messages
from mags.protocol.errors import Problem

log = logging.getLogger("mags.edge.ssh")

KEEP_ALIVE = 30.0
"""Seconds of a client's silence after which it is asked whether it is there; after four such it is not."""
RECHECK = 60.0
"""Seconds between two looks at all connections and ports, for changes that nobody told us of."""
TOLD = 16
"""Connections over a limit that are told so once they speak SSH; those above are cut off at once."""


class Gateway:
    def __init__(self, settings: Settings, hosts: HostClient, directory: Directory, activity: Activity) -> None:
        self._settings, self._hosts, self._directory, self._activity = settings, hosts, directory, activity
        self._tasks = Tasks()
        self._listeners: dict[int | None, asyncssh.SSHAcceptor] = {}
        self._opening = asyncio.Lock()
        self._connections: set[Connection] = set()
        self._by_client: Counter[str] = Counter()
        self._counted: dict[Connection, tuple[str, str]] = {}
        self._options: dict[str, Any] = {}
        self.host_key = ""

    @property
    def port(self) -> int:
        """The common port, also when it was set as 0."""
        return int(self._listeners[None].get_port())

    async def start(self) -> None:
        """Listens when this returns; the VMs' own ports follow as soon as control names them. OSError when the port
        is taken, ValueError when the host key is damaged."""
        settings = self._settings
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = keys.host_key(settings.data_dir)
        self.host_key = keys.line(key)
        self._options = {
            "server_host_keys": [key],
            "server_version": f"Mags_{__version__}",
            "login_timeout": settings.ssh_login_timeout_s,
            "keepalive_interval": KEEP_ALIVE,
            "keepalive_count_max": 4,
            "compression_algs": ["none"],
            "agent_forwarding": False,
            "x11_forwarding": False,
            "allow_scp": False,
            "line_editor": False,
            "gss_host": None,
            "backlog": 256,
            **keys.algorithms(),
        }
        self._directory.on_changed(self._on_changed)
        await self._hosts.connection.subscribe(edge.DESCRIBE, cb=self._on_describe)
        await self._hosts.connection.subscribe(edge.LISTEN, cb=self._on_listen)
        await self._listen(None, settings.ssh_port)
        self._tasks.start(self._look_after())
        log.info("SSH on %s:%d", settings.ssh_listen, self.port)

    async def aclose(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        for connection in list(self._connections):
            connection.close("The gateway is stopping; connect again in a moment")
        await self._tasks.aclose()
        for listener in self._listeners.values():
            await listener.wait_closed()

    # --- ports ----------------------------------------------------------------------------------------------------

    async def _listen(self, own: int | None, port: int) -> None:
        async with self._opening:
            if own not in self._listeners:
                self._listeners[own] = await asyncssh.listen(
                    self._settings.ssh_listen, port, server_factory=lambda: self._connection(own), **self._options
                )

    async def _open_own(self, port: int) -> None:
        """Problem when it can't be."""
        if port not in self._settings.own_ports:
            raise Problem("invalid", f"Port {port} is not in this edge's range ({self._settings.ssh_port_range}).")
        try:
            await self._listen(port, port)
        except OSError as error:
            raise Problem("unavailable", f"Port {port} can't be opened: {error.strerror}.") from error

    def _close_own(self, port: int) -> None:
        listener = self._listeners.pop(port, None)
        if listener is not None:
            listener.close()
        for connection in [one for one in self._connections if one.port == port]:
            connection.close("This sandbox is gone")

    async def _look_after(self) -> None:
        while True:
            if self._settings.own_ports:
                await self._follow_ports()
            await asyncio.sleep(RECHECK)
            for connection in list(self._connections):
                await connection.recheck()

    async def _follow_ports(self) -> None:
        before = {port for port in self._listeners if port is not None}
        try:
            wanted = set(await self._directory.ssh_ports())
        except Problem as problem:
            log.warning("the VMs' own SSH ports are not known: %s", problem.message)
            return
        # Not those that were opened while control answered: its answer may be from before.
        for port in before - wanted:
            self._close_own(port)
        for port in sorted(wanted):
            try:
                await self._open_own(port)
            except Problem as problem:
                log.warning("%s", problem.message)

    # --- connections ----------------------------------------------------------------------------------------------

    def _connection(self, own: int | None) -> Connection:
        return Connection(
            own,
            self._access,
            self._tasks,
            max_channels=self._settings.ssh_max_sessions,
            arrived=self._arrived,
            admitted=self._admitted,
            ended=self._ended,
        )

    def _access(self, user: str, public_key: str, port: int | None) -> Access:
        return Access(self._directory, self._hosts, user, public_key, port)

    def _arrived(self, connection: Connection) -> bool:
        """Whether to listen to it; it may be only to refuse it in words."""
        self._connections.add(connection)
        self._by_client[connection.client] += 1
        settings = self._settings
        everybody, its = len(self._connections), self._by_client[connection.client]
        strangers = sum(not one.admitted for one in self._connections)
        if its > settings.ssh_max_per_client:
            connection.refusal = f"Your address has {settings.ssh_max_per_client} connections already; end one first"
        elif everybody > settings.ssh_max_connections:
            connection.refusal = "The gateway has all the connections it can have; try again in a moment"
        return (
            everybody <= settings.ssh_max_connections + TOLD
            and strangers <= settings.ssh_max_unauthenticated
            and its <= settings.ssh_max_per_client + TOLD
        )

    def _admitted(self, connection: Connection) -> None:
        access = connection.access
        if access is not None and access.vm_id is not None and access.host_id is not None:
            self._counted[connection] = (access.host_id, access.vm_id)
            self._activity.opened(access.host_id, access.vm_id)

    def _ended(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._by_client[connection.client] -= 1
        if self._by_client[connection.client] <= 0:
            del self._by_client[connection.client]
        counted = self._counted.pop(connection, None)
        if counted is not None:
            self._activity.closed(*counted)

    # --- told by control ------------------------------------------------------------------------------------------

    def _on_changed(self, changed: edge.Changed) -> None:
        for port in changed.ports:
            self._close_own(port)
        for connection in list(self._connections):
            if connection.access is not None and connection.access.vm_id in changed.vms:
                self._tasks.start(connection.recheck())

    async def _on_describe(self, message: Msg) -> None:
        await message.respond(messages.answer(edge.EdgeInfo(ssh_host_key=self.host_key)))

    async def _on_listen(self, message: Msg) -> None:
        try:
            await self._open_own(messages.decode(message.data, edge.Listen).port)
        except Problem as problem:
            await message.respond(messages.refusal(problem))
        else:
            await message.respond(messages.answer(messages.Done()))
