"""A VM that sleeps and wakes through a real host program."""

from __future__ import annotations

import asyncio
import time

import pytest

from mags.protocol import messages as m
from mags.protocol.errors import Problem
from tests.kit.host_world import Caller, HostProgram

pytestmark = pytest.mark.vm

COUNTER = "mkdir -p /m; mount -t tmpfs none /m; i=0; while :; do i=$((i+1)); echo $i >/m/.n; mv /m/.n /m/n; sleep 0.05; done"


async def sleep(caller: Caller, vm_id: str) -> None:
    await caller.ask("sleep", m.VmRequest(vm_id=vm_id), m.Done)


async def wake(caller: Caller, vm_id: str) -> None:
    await caller.ask("wake", m.VmRequest(vm_id=vm_id), m.Done)


async def state(caller: Caller, vm_id: str) -> str:
    listed = await caller.ask("list", m.Empty(), m.VmList)
    return next(vm.state for vm in listed.vms if vm.vm_id == vm_id)


async def count(caller: Caller, vm_id: str) -> int:
    return int((await caller.exec(vm_id, "cat /m/n")).stdout)


async def counting(caller: Caller) -> str:
    """A VM with a process in the background that counts in memory."""
    vm_id, _ = await caller.start(f"({COUNTER}) >/dev/null 2>&1 & sleep 0.2; echo begun", keep="stay")
    while (await caller.exec(vm_id, "test -s /m/n")).exit_code:
        await asyncio.sleep(0.05)
    return vm_id


async def test_a_vm_sleeps_without_a_process_and_wakes_on_use(caller: Caller, host: HostProgram) -> None:
    vm_id = await counting(caller)
    before = await count(caller, vm_id)
    pid = host.hypervisor(vm_id)
    began = time.monotonic()
    await sleep(caller, vm_id)
    print("slept in", time.monotonic() - began)
    assert await state(caller, vm_id) == "sleeping"
    await caller.told(m.VmChanged, vm_id=vm_id, state="sleeping")
    with pytest.raises(AssertionError):
        host.hypervisor(vm_id)
    await sleep(caller, vm_id)
    began = time.monotonic()
    await wake(caller, vm_id)
    print("woken in", time.monotonic() - began)
    began = time.monotonic()
    assert await count(caller, vm_id) >= before
    print("first exec in", time.monotonic() - began)
    await caller.told(m.VmChanged, vm_id=vm_id, state="running")
    first = await count(caller, vm_id)
    while await count(caller, vm_id) == first:
        await asyncio.sleep(0.1)
    now = int((await caller.exec(vm_id, "date +%s")).stdout)
    assert abs(now - time.time()) < 60
    assert host.hypervisor(vm_id) != pid
