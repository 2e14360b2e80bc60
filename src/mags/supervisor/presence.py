"""What the hosts say of themselves, listened to over NATS: is our host up, and what does it hold."""

from __future__ import annotations

import asyncio

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from mags.kit import nats
from mags.protocol import subjects
from mags.protocol.errors import Problem
from mags.protocol.messages import Presence, decode

SILENCE = 15.0
"""Seconds after which a host's last word says nothing any more."""


STORAGE_PATIENCE = 20.0
"""Seconds that a host has to open its storage before it counts as ready without."""


class PresenceWatch:
    """What each host said last, while it is fresh. `own`: the one of this machine's supervisor, among others."""

    def __init__(self, url: str, own: str) -> None:
        self._url, self._own = url, own
        self._client: Client | None = None
        self._heard: dict[str, tuple[float, Presence]] = {}
        self._first_heard: dict[str, float] = {}
        self._accepted_boot: str | None = None

    async def start(self) -> None:
        """TimeoutError when NATS does not let us in."""
        self._client = await nats.connect(self._url, name="mags-supervisor", timeout=20)
        await self._client.subscribe(subjects.PRESENCE, cb=self._hear)
        await nats.settle(self._client)

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def client(self) -> Client:
        assert self._client is not None
        return self._client

    @property
    def hosts(self) -> list[Presence]:
        now = asyncio.get_running_loop().time()
        return [presence for at, presence in self._heard.values() if now - at < SILENCE]

    @property
    def own(self) -> list[Presence]:
        """Our own host, if it has spoken."""
        return [presence for presence in self.hosts if presence.host_id == self._own]

    async def heard(self, *, timeout: float) -> None:
        """Wait until our own host speaks. TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while not self.own:
                await asyncio.sleep(0.05)

    async def host_is_new(self) -> bool:
        """Readiness of our host that was just started: it has spoken since the last time that this was true.

        A host whose storage is not well yet is given some seconds more: most often it is just being opened.
        """
        now = asyncio.get_running_loop().time()
        for presence in self.own:
            if presence.boot == self._accepted_boot:
                continue
            if presence.storage in ("", "ok") or now - self._first_heard[presence.boot] > STORAGE_PATIENCE:
                self._accepted_boot = presence.boot
                return True
        return False

    async def _hear(self, message: Msg) -> None:
        try:
            presence = decode(message.data, Presence)
        except (Problem, msgspec.MsgspecError):
            return
        now = asyncio.get_running_loop().time()
        self._heard[presence.host_id] = (now, presence)
        self._first_heard.setdefault(presence.boot, now)
