"""A VM on a workspace: what is done while its guest greets, and what is left when one of both fails."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mags.host.guest import ChannelClosed
from mags.host.machines.birth import bear
from mags.host.machines.record import Record
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment, VmSpec


class World:
    """A machine's parts, as far as they are used."""

    def __init__(self, *, greeting: Exception | None = None, beginning: Exception | None = None) -> None:
        self.greeting, self.beginning = greeting, beginning
        self.greets, self.begins = asyncio.Event(), asyncio.Event()
        self.closed: list[object] = []
        self.cell: Any = SimpleNamespace()
        self.cancelled = False
        attachment = Attachment(workspace_id=new_id(), epoch=1, disk_gb=1)
        record = Record(handle="h", spec=VmSpec(image="alpine"), uid=0, attachment=attachment)
        cells = SimpleNamespace(make=self.make, close=self.close, vmm=SimpleNamespace(ready=lambda spec: True))
        keeper = SimpleNamespace(disk=self.disk, begin=self.begin, jfs="jfs")
        self.machine: Any = SimpleNamespace(
            record=record,
            parts=SimpleNamespace(cells=cells),
            keeper=keeper,
            dispatcher=SimpleNamespace(origin="", jfs=None),
        )

    async def disk(self) -> None:
        return None

    async def make(self, record: Record, *, work_disk: object, on_running: Any) -> object:
        on_running("vm", SimpleNamespace(host_address="10.0.0.1"))
        if self.greeting is None:
            await self.begins.wait()  # both at once, or never
        self.greets.set()
        if self.greeting is not None:
            await self.begins.wait()
            raise self.greeting
        return self.cell

    async def begin(self, vm: object, host_address: str) -> None:
        self.begins.set()
        await self.greets.wait()
        if self.beginning is not None:
            raise self.beginning
        if self.greeting is not None:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled = True

    async def close(self, cell: object) -> None:
        self.closed.append(cell)


async def test_the_workspace_is_begun_while_the_guest_greets() -> None:
    world = World()
    async with asyncio.timeout(10):
        assert await bear(world.machine) is world.cell
    assert world.machine.dispatcher.jfs == "jfs" and not world.closed


async def test_a_vm_whose_workspace_can_not_be_begun_is_closed() -> None:
    world = World(beginning=Problem("unavailable", "The volume does not work."))
    async with asyncio.timeout(10):
        with pytest.raises(Problem, match="volume"):
            await bear(world.machine)
    assert world.closed == [world.cell] and world.machine.dispatcher.jfs is None


async def test_nothing_goes_on_for_a_vm_that_does_not_greet() -> None:
    world = World(greeting=ChannelClosed("QEMU died."))
    async with asyncio.timeout(10):
        with pytest.raises(ChannelClosed):
            await bear(world.machine)
    assert world.cancelled and not world.closed  # `make` has cleaned up
