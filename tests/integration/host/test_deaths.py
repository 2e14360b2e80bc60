"""VMs that die, or can't be saved or woken, and what becomes of those that are to stay. The guests are scripted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mags.host.machines import driver, lifeline
from mags.host.machines.lifeline import Lifeline
from mags.host.vmm.driver import VmmError
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from tests.integration.host.test_fleet import put_to_sleep, state, wake, world
from tests.kit.scripted_vmm import ScriptedVm, ScriptedVmm


class Refusing:
    """No VM comes up again until `fine`."""

    def __init__(self) -> None:
        self.tries = 0
        self.fine = False

    async def __call__(self, _: object) -> None:
        self.tries += 1
        if not self.fine:
            raise VmmError("QEMU can't be started.")


async def test_a_vm_that_falls_silent_keeps_files_that_are_nowhere_else(tmp_path: Path) -> None:
    vmm = ScriptedVmm()
    async with world(tmp_path, vmm, pulse_s=0.2, pulse_deadline_s=1) as caller:
        vm_id, job_id = await caller.start("mute", keep="stay")
        told = await caller.told(m.VmChanged, vm_id=vm_id, state="sleeping")
        assert "did not answer" in told.reason
        assert "did not answer" in str((await caller.ended(job_id)).error)
        assert vmm.made[0].died.done() and vmm.made[0].directory.exists()
        await wake(caller, vm_id)
        assert await state(caller, vm_id) == "running" and len(vmm.made) == 2


async def test_a_vm_that_never_sleeps_and_can_not_be_started_again_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "WAKE_AGAIN_S", 0.1)
    vmm, refusing = ScriptedVmm(), Refusing()
    vmm.on_wake = refusing
    async with world(tmp_path, vmm) as caller:
        vm_id, job_id = await caller.start("wait", keep="stay", no_sleep=True)
        vmm.made[0].died.set_result("QEMU was ended by signal 9.")
        told = await caller.told(m.VmChanged, vm_id=vm_id, state="sleeping")
        assert "signal 9" in told.reason and "can't be started again: QEMU can't be started." in told.reason
        assert "signal 9" in str((await caller.ended(job_id)).error)
        async with asyncio.timeout(60):
            while refusing.tries < 3:
                await asyncio.sleep(0.01)
        assert vmm.made[0].directory.exists()
        refusing.fine = True
        await caller.told(m.VmChanged, vm_id=vm_id, state="running")
        assert (await caller.run(vm_id, "echo on")).stdout == b"on\n"


async def test_a_vm_that_can_not_be_woken_now_sleeps_on(tmp_path: Path) -> None:
    vmm, refusing = ScriptedVmm(), Refusing()
    vmm.on_wake = refusing
    async with world(tmp_path, vmm) as caller:
        vm_id = await put_to_sleep(caller)
        with pytest.raises(Problem) as caught:
            await wake(caller, vm_id)
        assert caught.value.code == "unavailable" and "can't be started" in caught.value.message
        assert await state(caller, vm_id) == "sleeping" and vmm.asleep(vmm.made[0].directory)
        refusing.fine = True
        await wake(caller, vm_id)
        assert await state(caller, vm_id) == "running"


async def test_a_vm_that_dies_while_it_is_saved_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(vm: ScriptedVm) -> None:
        vm.died.set_result("QEMU was ended by signal 9.")
        raise VmmError(vm.died.result())

    vmm = ScriptedVmm()
    async with world(tmp_path, vmm) as caller:
        vm_id, job_id = await caller.start("wait", keep="stay")
        with monkeypatch.context() as dying:
            dying.setattr(ScriptedVm, "save", die)
            with pytest.raises(Problem) as caught:
                await caller.ask("sleep", m.VmRequest(vm_id=vm_id), m.Done)
        assert caught.value.code == "unavailable" and "signal 9" in caught.value.message
        assert "signal 9" in str((await caller.ended(job_id)).error)
        told = await caller.told(m.VmChanged, vm_id=vm_id, state="sleeping")
        assert "signal 9" in told.reason
        await wake(caller, vm_id)


async def test_a_vm_whose_host_goes_down_and_that_can_not_be_saved_keeps_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(vm: ScriptedVm) -> None:
        raise VmmError("The VM's memory can't be saved: the host's disk is full.")

    vmm = ScriptedVmm()
    async with world(tmp_path, vmm) as caller:
        vm_id, job_id = await caller.start("wait", keep="stay")
        with monkeypatch.context() as failing:
            failing.setattr(ScriptedVm, "save", fail)
            await caller.ask("sleep", m.VmRequest(vm_id=vm_id, force=True), m.Done)
        assert "disk is full" in str((await caller.ended(job_id)).error)
        assert await state(caller, vm_id) == "sleeping" and vmm.made[0].directory.exists()
        # The host stays up after all: it sleeps and wakes as ever.
        await wake(caller, vm_id)
        using = asyncio.create_task(caller.run(vm_id, "wait"))
        await caller.ask("sleep", m.VmRequest(vm_id=vm_id), m.Done)
        using.cancel()
        assert vmm.asleep(vmm.made[0].directory)


async def test_a_script_that_meets_a_vm_just_dead_does_not_end_it_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met, explain = asyncio.Event(), Lifeline.explain

    async def meet(which: Lifeline, error: Exception) -> str:
        met.set()
        return await explain(which, error)

    monkeypatch.setattr(Lifeline, "explain", meet)
    monkeypatch.setattr(lifeline, "DEATH_S", 60.0)
    vmm = ScriptedVmm()
    async with world(tmp_path, vmm) as caller:
        vm_id, _ = await caller.start(None, keep="stay")
        await vmm.made[0].hang_up()
        running = asyncio.create_task(caller.run(vm_id, "echo no"))
        await met.wait()
        vmm.made[0].died.set_result("QEMU was ended by signal 9.")
        with pytest.raises(Problem, match="signal 9"):
            await running
        await caller.told(m.VmChanged, vm_id=vm_id, state="sleeping")
        assert (await caller.run(vm_id, "echo on")).stdout == b"on\n"
