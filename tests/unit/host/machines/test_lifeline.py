"""Whether a VM that does not answer is given up."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast
from unittest.mock import AsyncMock

from mags.host.config import Settings
from mags.host.machines.cells import Cell
from mags.host.machines.lifeline import Lifeline
from mags.host.vmm.stall import Stall

SETTINGS = Settings(pulse_s=0.001, pulse_deadline_s=0.01)


class Guest:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def ping(self) -> None:
        self.asked += 1
        await self.answers.wait()


def silent() -> tuple[Guest, Stall, Cell]:
    guest, stall = Guest(), Stall()
    vm = SimpleNamespace(stall=stall, listen=AsyncMock())
    return guest, stall, cast(Cell, SimpleNamespace(vm=vm, channel=guest))


async def asked(guest: Guest, times: int) -> None:
    wanted = guest.asked + times
    while guest.asked < wanted:
        await asyncio.sleep(0.001)


async def test_silent_vm_has_failed() -> None:
    ends: list[str] = []
    _, _, cell = silent()
    await Lifeline(SETTINGS, ends.append).pulse(cell)
    assert ends == ["The VM has failed: it did not answer for 0.01 s."]


async def test_vm_that_waits_for_its_disk_is_not_to_blame() -> None:
    ends: list[str] = []
    guest, stall, cell = silent()
    stall.begin("its disk is away")
    pulse = asyncio.create_task(Lifeline(SETTINGS, ends.append).pulse(cell))
    await asked(guest, 4)
    stall.end()
    stall.begin("and again, between two looks")
    await asked(guest, 2)
    assert ends == []
    stall.end()
    await pulse
    assert len(ends) == 1


async def test_nor_is_one_whose_hypervisor_waits_for_a_disk() -> None:
    ends: list[str] = []
    guest, stall, cell = silent()

    async def listen() -> None:
        stall.begin("QEMU does not answer")

    cell.vm.listen = listen  # type: ignore[method-assign]
    pulse = asyncio.create_task(Lifeline(SETTINGS, ends.append).pulse(cell))
    await asked(guest, 3)
    assert ends == []
    pulse.cancel()
    await asyncio.gather(pulse, return_exceptions=True)
