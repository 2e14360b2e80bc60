"""The edge program: one connection to NATS, the public URLs, the SSH gateway."""

from __future__ import annotations

import asyncio
import logging
import signal

from nats.aio.client import Client

from mags.edge.activity import Activity
from mags.edge.config import Settings
from mags.edge.dialing import Dialer
from mags.edge.directory import Directory
from mags.edge.ssh.gateway import Gateway
from mags.edge.tasks import Tasks
from mags.edge.urls.front import Urls
from mags.hostclient import HostClient
from mags.kit import nats
from mags.kit.children import Child
from mags.protocol.ids import new_id

log = logging.getLogger("mags.edge")


class Edge:
    """Made, started, closed once. `aclose` is right after a failed start too."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._tasks = Tasks()
        self._connection: Client | None = None
        self._directory: Directory | None = None
        self._dialer: Dialer | None = None
        self._urls: Urls | None = None
        self.ssh: Gateway | None = None

    async def start(self) -> None:
        settings = self.settings
        self._connection = await nats.connect(settings.nats_url.get_secret_value(), name=f"edge-{settings.edge_id}")
        hosts = HostClient(self._connection)
        directory = self._directory = Directory(self._connection)
        await directory.start()
        instance = new_id()
        activity = Activity(self._connection, instance)
        self._tasks.start(activity.run(settings.activity_interval_s))
        self._dialer = Dialer(hosts, settings.machine_id, instance)
        await self._dialer.start()
        self._urls = Urls(settings, directory, self._dialer, activity)
        await self._urls.start()
        self.ssh = Gateway(settings, hosts, directory, activity)
        await self.ssh.start()
        await nats.settle(self._connection)  # what is subscribed to, is heard from now on

    @property
    def caddy(self) -> Child | None:
        return self._urls.caddy if self._urls is not None else None

    async def aclose(self) -> None:
        if self.ssh is not None:
            await self.ssh.aclose()
        if self._urls is not None:
            await self._urls.aclose()
        if self._dialer is not None:
            await self._dialer.aclose()
        if self._directory is not None:
            await self._directory.aclose()
        await self._tasks.aclose()
        if self._connection is not None:
            await self._connection.close()


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    edge = Edge(settings)
    try:
        await edge.start()
        log.info("the edge %s is up", settings.edge_id)
        await ended.wait()
    finally:
        await edge.aclose()
