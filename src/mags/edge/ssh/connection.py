"""One client's connection: who it is, and which channels it may have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import asyncssh
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from mags.edge.ssh import keys
from mags.edge.ssh.access import Access
from mags.edge.ssh.forward import LONGEST_HOST, Forward
from mags.edge.ssh.shell import Environment, Shell
from mags.edge.tasks import Tasks
from mags.protocol.errors import Problem

log = logging.getLogger("mags.edge.ssh")

TRIES = 6
"""Failed tries to log in, after which the connection ends (as OpenSSH's MaxAuthTries)."""
USERAUTH = b"ssh-userauth"
LONGEST_USER = 200
WINDOW = 1 << 20
"""Bytes that a client may send ahead on a channel."""

AccessMaker = Callable[[str, str, int | None], Access]


class Connection(asyncssh.SSHServer):
    """`port`: the VM's own port that it came to, None on the common one. `arrived`, `admitted` and `ended` keep the
    gateway's count; `arrived` may set `refusal`, a sentence that the client is told instead of being let in."""

    def __init__(
        self,
        port: int | None,
        access: AccessMaker,
        tasks: Tasks,
        *,
        max_channels: int,
        arrived: Callable[[Connection], bool],
        admitted: Callable[[Connection], None],
        ended: Callable[[Connection], None],
    ) -> None:
        self.port = port
        self.client = ""
        self.refusal = ""
        self.access: Access | None = None
        self.admitted = False
        self._make_access, self._tasks, self._max_channels = access, tasks, max_channels
        self._arrived, self._on_admitted, self._ended = arrived, admitted, ended
        self._connection: asyncssh.SSHServerConnection | None = None
        self._failures = 0
        self._channels: set[Any] = set()

    # --- called by asyncssh ---------------------------------------------------------------------------------------

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        peer = conn.get_extra_info("peername")
        self.client = str(peer[0]) if peer else ""
        if not self._arrived(self):
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(self)

    def begin_auth(self, username: str) -> bool:
        self.access = None
        if self.refusal and self._connection is not None:
            self._connection.disconnect(asyncssh.DISC_TOO_MANY_CONNECTIONS, self.refusal)
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        # asyncssh asks this exactly once for each answer "failure" (to list the methods that remain), whatever
        # method had been tried, and has no limit of its own. The first failure is most clients' question "none".
        self._failures += 1
        if self._failures > TRIES:
            self.close("Too many authentication failures")
        self._expect(USERAUTH)
        return False

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Asked before the client signs, and after. asyncssh lets it in only when the signature is right too."""
        self.access = None
        if len(username) > LONGEST_USER or not _strong(key):
            return False
        access = self._make_access(username, keys.line(key), self.port)
        try:
            allowed = await access.refresh()
        except Problem as problem:
            log.warning("nobody can log in: %s", problem.message)
            return False
        if allowed:
            self.access = access
        return allowed

    def auth_completed(self) -> None:
        self.admitted = True
        self._expect(None)
        self._on_admitted(self)

    def session_requested(self) -> Any:
        shell = Shell(self._usable(), self._tasks)
        assert self._connection is not None
        channel: Any = self._connection.create_server_channel(encoding=None, window=WINDOW)
        channel._env = Environment()  # before the first request comes; there is no public way to bound it
        return self._channel(channel), shell

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        access = self._usable()
        if len(dest_host) > LONGEST_HOST or not 0 < dest_port < 65536:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "There can be no such address")
        forward = Forward(access, self._tasks, dest_host, dest_port)
        assert self._connection is not None
        return self._channel(self._connection.create_tcp_channel(encoding=None, window=WINDOW)), forward

    # --- for the gateway ------------------------------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """Say why and hang up. Repeatable."""
        if self._connection is not None:
            self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, reason)

    async def recheck(self) -> None:
        """End it when its key opens nothing any more."""
        if self.access is None or not self.admitted:
            return
        try:
            allowed = await self.access.refresh()
        except Problem:
            return  # control is away: what was so a moment ago holds
        if not allowed:
            self.close("This key opens nothing here any more")

    # --- inside ---------------------------------------------------------------------------------------------------

    def _usable(self) -> Access:
        if self.access is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "Not logged in")
        self._channels = {channel for channel in self._channels if not channel.is_closing()}
        if len(self._channels) >= self._max_channels:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, f"At most {self._max_channels} channels in one connection"
            )
        return self.access

    def _expect(self, service: bytes | None) -> None:
        """paramiko asks for the service again before each key that it tries: sshd allows it, asyncssh hangs up."""
        if self._connection is not None:
            self._connection._next_service = service

    def _channel(self, channel: Any) -> Any:
        self._channels.add(channel)
        return channel


def _strong(key: asyncssh.SSHKey) -> bool:
    """Whether a client's key is long enough; the algorithms do not say that of RSA."""
    public = key.pyca_key
    return not isinstance(public, RSAPublicKey) or public.key_size >= keys.SMALLEST_RSA
