"""Garbage is collected by two hosts while one writes to a workspace, and the other forks it and deletes the forks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from mags.host.storage.attached import Attached
from mags.host.storage.config import StorageSettings
from mags.host.storage.engine import Engine
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment
from tests.integration.storage.volumes import OpenEngine
from tests.kit.postgres import cluster

SPOT = 700 << 20
FORKS = 20


@pytest.fixture
def shared(place: Path) -> Iterator[StorageSettings]:
    with cluster() as database:
        url = database.url.replace("postgresql+asyncpg", "postgres") + "?sslmode=disable"
        yield StorageSettings.model_validate({"kind": "local", "blocks_dir": place / "blocks", "meta_url": url})


class World:
    """One workspace, its newest generation, and what is in it."""

    def __init__(self, one: Engine, two: Engine) -> None:
        self.one, self.two, self.workspace = one, two, new_id()
        self.current = 0

    async def write(self, attached: Attached) -> None:
        """Each generation says its own number."""
        draft = await attached.begin(attached.size)
        descriptor = os.open(draft, os.O_RDWR)
        os.pwrite(descriptor, b"%08d" % (self.current + 1), SPOT)
        os.fsync(descriptor)
        os.close(descriptor)
        number = await attached.publish(draft)
        assert number == self.current + 1
        self.current = number
        await attached.committed(number)

    async def fork(self) -> None:
        number = self.current
        attachment = Attachment(workspace_id=new_id(), epoch=1, disk_gb=1, base=self.workspace, base_generation=number)
        fork = await self.two.workspaces.attach(attachment, vm_id=new_id())
        with fork.image.open("rb") as image:
            assert os.pread(image.fileno(), 8, SPOT) == b"%08d" % number
        await fork.committed(fork.generation)
        again = await fork.begin(fork.size)
        await fork.committed(await fork.publish(again))
        await fork.release()
        await self.two.workspaces.delete(attachment.workspace_id)

    async def read(self) -> None:
        """A throw-away copy, on the host that writes."""
        number = self.current
        attachment = Attachment(
            workspace_id=self.workspace, base=self.workspace, base_generation=number, disk_gb=1, discard=True
        )
        copy = await self.one.workspaces.attach(attachment, vm_id=new_id())
        await self.one.workspaces.collect()
        with copy.image.open("rb") as image:
            assert os.pread(image.fileno(), 8, SPOT) == b"%08d" % number
        await copy.release()


async def test_nothing_that_is_read_or_written_is_collected(
    shared: StorageSettings, place: Path, open_engine: OpenEngine
) -> None:
    world = World(await open_engine(place / "one", shared), await open_engine(place / "two", shared, host_id="h2"))
    owner = await world.one.workspaces.attach(
        Attachment(workspace_id=world.workspace, epoch=1, disk_gb=1), vm_id=new_id()
    )
    await world.write(owner)

    enough = asyncio.Event()

    async def until_enough(work: Callable[[], Awaitable[None]]) -> None:
        while not enough.is_set():
            await work()
            await asyncio.sleep(0.05)

    async def forks() -> None:
        for _ in range(FORKS // 2):
            await asyncio.gather(world.fork(), world.fork())
        enough.set()

    async with asyncio.timeout(150), asyncio.TaskGroup() as tasks:
        tasks.create_task(forks())
        for engine in (world.one, world.two):
            tasks.create_task(until_enough(engine.workspaces.collect))
        for work in (lambda: world.write(owner), world.read, world.one.workspaces.beat):
            tasks.create_task(until_enough(work))
    await owner.release()
    await world.one.workspaces.delete(world.workspace)
    await world.two.collect()
    top = world.one.mount.point
    assert not [*(top / "workspaces").iterdir(), *(top / "scratch").iterdir(), *(top / "deleted").iterdir()]
