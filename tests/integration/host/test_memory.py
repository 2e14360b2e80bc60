"""Who gets memory when a host has little of it. The guests and what /proc/meminfo says are scripted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mags.host.machines import relief, waker
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from tests.integration.host.test_fleet import put_to_sleep, state, wake, world
from tests.kit.scripted_vmm import ScriptedVmm

RESERVE_MB = 1000


class Meminfo:
    """Free memory, MiB."""

    def __init__(self) -> None:
        self.free = 8000

    def __call__(self) -> dict[str, int]:
        return {"MemTotal": 16000 << 10, "MemAvailable": self.free << 10}


async def test_who_wants_to_wake_a_vm_is_held_until_there_is_memory(tmp_path: Path) -> None:
    memory, vmm = Meminfo(), ScriptedVmm()
    async with world(tmp_path, vmm, memory=memory, memory_reserve_mb=RESERVE_MB) as caller:
        vm_id = await put_to_sleep(caller)
        memory.free = RESERVE_MB
        held = [asyncio.create_task(caller.exec(vm_id, f"echo {number}")) for number in range(3)]
        told = await caller.told(m.VmChanged, vm_id=vm_id, state="sleeping", about="memory of host h1")
        assert "can't wake" in told.reason and "stop some VMs" in told.reason
        assert not any(task.done() for task in held) and len(vmm.made) == 1
        memory.free = 8000
        await asyncio.gather(*held)
        assert await state(caller, vm_id) == "running" and len(vmm.made) == 2


async def test_who_has_waited_for_memory_for_long_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waker, "PATIENCE_S", 0.2)
    memory, vmm = Meminfo(), ScriptedVmm()
    async with world(tmp_path, vmm, memory=memory, memory_reserve_mb=RESERVE_MB) as caller:
        vm_id = await put_to_sleep(caller)
        memory.free = RESERVE_MB + 50
        for ask in (wake(caller, vm_id), caller.run(vm_id, "echo no")):
            with pytest.raises(Problem) as caught:
                await ask
            assert caught.value.code == "no_capacity" and "memory" in caught.value.message
            assert caught.value.details["retry_after"]
        assert await state(caller, vm_id) == "sleeping" and len(vmm.made) == 1
        # It can be ended all the same.
        await caller.stop(vm_id)


async def test_vms_that_wake_at_once_share_what_there_is(tmp_path: Path) -> None:
    """Each is counted while it comes up, when its memory is not in use yet."""
    memory, vmm = Meminfo(), ScriptedVmm()
    coming, most, let = 0, 0, asyncio.Event()

    async def on_wake(_: object) -> None:
        nonlocal coming, most
        coming += 1
        most = max(most, coming)
        await let.wait()
        coming -= 1

    vmm.on_wake = on_wake
    async with world(tmp_path, vmm, memory=memory, memory_reserve_mb=RESERVE_MB, clones_at_once=10) as caller:
        vms = [await put_to_sleep(caller) for _ in range(4)]
        memory.free = RESERVE_MB + 2 * 96
        waking = [asyncio.create_task(wake(caller, vm_id)) for vm_id in vms]
        async with asyncio.timeout(60):
            while coming < 2 or sum("memory of" in getattr(event, "reason", "") for event in caller.events) < 2:
                await asyncio.sleep(0.01)
        assert most == 2
        let.set()
        await asyncio.gather(*waking)
        assert most == 2


async def test_the_pool_gives_way_and_fills_again_when_there_is_memory(tmp_path: Path) -> None:
    memory, vmm = Meminfo(), ScriptedVmm()
    pool: dict[str, Any] = {"pool_target": 2, "pool_memory_mb": 256, "pool_quiet_s": 0, "pool_max_load": 1000}
    async with world(tmp_path, vmm, memory=memory, memory_reserve_mb=RESERVE_MB, **pool) as caller:
        vm_id = await put_to_sleep(caller)
        await caller.pool_has(2)
        # Room enough for all but the one that is to wake.
        memory.free = RESERVE_MB + 50
        waking = asyncio.create_task(wake(caller, vm_id))
        await caller.pool_has(0)
        memory.free = RESERVE_MB + 150
        await waking
        memory.free = 8000
        await caller.pool_has(2)
        # And without anybody who asks, rather than that the host runs out of it.
        memory.free = RESERVE_MB - 1
        await caller.pool_has(0)


async def test_the_idle_sleep_early_so_that_there_is_room_for_new_vms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relief, "RESTED_S", 0.3)
    memory, vmm = Meminfo(), ScriptedVmm()
    async with world(tmp_path, vmm, memory=memory, memory_reserve_mb=RESERVE_MB) as caller:
        vm_id, _ = await caller.start(None, keep="stay")
        memory.free = RESERVE_MB + 50
        assert not (await caller.presence()).accepting
        await caller.told(m.VmChanged, vm_id=vm_id, state="sleeping")


async def test_who_was_idle_for_longest_sleeps_for_who_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relief, "RESTED_S", 0.3)
    memory, vmm = Meminfo(), ScriptedVmm()
    async with world(tmp_path, vmm, memory=memory, memory_reserve_mb=RESERVE_MB) as caller:
        needed = await put_to_sleep(caller)
        never, _ = await caller.start(None, keep="stay", no_sleep=True)
        longest, _ = await caller.start(None, keep="stay")
        later, _ = await caller.start(None, keep="stay")
        await caller.exec(later, "true")
        memory.free = RESERVE_MB
        waking = asyncio.create_task(wake(caller, needed))
        told = await caller.told(m.VmChanged, vm_id=longest, state="sleeping")
        memory.free = 8000
        await waking
        assert told.reason == ""
        assert [await state(caller, vm_id) for vm_id in (never, longest, later)] == ["running", "sleeping", "running"]
