"""From start to clean end: connect, migrate, serve, watch, carry on."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mags.control.accounts.bootstrap import bootstrap
from mags.control.app.serving import Server
from mags.control.config import Settings
from mags.control.db import Database, migrate
from mags.control.lifecycles import events, runner, uploads
from mags.control.lifecycles.world import World
from mags.control.urls.answers import EdgeAnswers
from mags.hostclient import HostClient, Hosts
from mags.kit import tasks
from mags.kit.nats import connect

log = logging.getLogger("mags.control")


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[World]:
    """A world with everything open and its background work going; closed again at the end."""
    database = Database(settings.database_url.get_secret_value())
    try:
        await migrate(database)
        await bootstrap(database, settings.bootstrap_token_file, settings.bootstrap_user)
        connection = await connect(settings.nats_url.get_secret_value(), name="mags-control")
        try:
            world = World(
                settings=settings,
                db=database,
                connection=connection,
                jetstream=connection.jetstream(timeout=10),
                hosts=Hosts(connection, lost_after=settings.host_lost_s),
                client=HostClient(connection),
            )
            await events.ensure_streams(world)
            await uploads.ensure_store(world)
            async with _running(world):
                yield world
        finally:
            await connection.close()
    finally:
        await database.close()


@asynccontextmanager
async def _running(world: World) -> AsyncIterator[None]:
    answers = EdgeAnswers(world)
    async with asyncio.TaskGroup() as group:
        world.own(group)
        duties = [group.create_task(duty) for duty in (*runner.duties(world), events.consume(world))]
        try:
            await world.hosts.start()
            await answers.start()
            yield
        finally:
            await answers.stop()
            await world.hosts.stop()
            await tasks.end(duties)
            await world.end()


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with opened(settings) as world:
        server = Server(world)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        await server.serve()
    log.info("stopped")
