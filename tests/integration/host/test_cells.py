"""What a VM occupies of the host, found again by the next host program; with real networks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mags.host.isolation import Cgroups, UidPool
from mags.host.machines.cells import Cells
from mags.host.machines.record import Record, Records
from mags.host.network import NamespacePool, kernel
from mags.protocol.messages import VmSpec
from mags.protocol.states import VmState
from tests.kit.networks import World, ip
from tests.kit.scripted_vmm import ScriptedVmm


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@asynccontextmanager
async def cells(folder: Path, *, target: int) -> AsyncIterator[Cells]:
    """As the host program makes them, with all that an earlier one left swept."""
    namespaces = await NamespacePool.open(folder / "state", runtime=folder / "run", target=target)
    records = Records(folder / "records")
    made = Cells(
        ScriptedVmm(),
        namespaces,
        UidPool(231_000, 16),
        Cgroups(namespaces.installation, 0, {}),
        records,
        directory=folder / "vms",
        at_once=1,
    )
    try:
        async with asyncio.timeout(60):
            while namespaces.ready < target:
                await asyncio.sleep(0.01)
        yield made
    finally:
        await namespaces.aclose()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for left in tmp_path.glob("run/*/net/*"):  # by a test that fails half way
        kernel.unpin(left)


async def test_after_a_restart_of_the_machine_no_vm_takes_the_network_of_another(world: World, place: Path) -> None:
    asleep = Record(handle="asleep", spec=VmSpec(image="alpine"), uid=231_000, state=VmState.SLEEPING, vm_id="v")
    async with cells(place, target=0) as before:
        network = await before.network(asleep)
    ip(f"link del {network.name}")
    kernel.unpin(network.path)
    async with cells(place, target=2) as after:
        (record,) = after.records.read_all()
        await after.sweep([record])
        others = [await after.namespaces.take() for _ in range(2)]
        assert network.index in [other.index for other in others]
        again = await after.network(record)
        assert again.index not in [other.index for other in others]
        for one in (*others, again):
            await after.namespaces.release(one)
