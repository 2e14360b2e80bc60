"""Guests that answer with garbage, or not at all, just when they fall asleep or wake: the VM may suffer, nothing else
does, and nobody is kept waiting. The guests are scripted."""

from __future__ import annotations

from pathlib import Path

import pytest

from mags.host.machines import cells, lifeline, sleeper
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from mags.protocol.guest import FrameType
from tests.integration.host.test_fleet import put_to_sleep, state, world
from tests.kit.scripted_vmm import ScriptedVmm

HABITS = ["garbage", "huge", "close", "mute"]


@pytest.mark.parametrize(("frame", "habits"), [(FrameType.RESET, HABITS), (FrameType.CONFIGURE, HABITS[:-1])])
async def test_a_guest_that_does_not_answer_when_it_is_woken_is_started_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: FrameType, habits: list[str]
) -> None:
    """Its image is spent by then: it has run. Who woke it is served by the fresh one."""
    monkeypatch.setattr(cells, "GREETING_S", 0.3)
    vmm = ScriptedVmm()
    async with world(tmp_path, vmm) as caller:
        for habit in habits:
            vm_id, job_id = await caller.start("wait", keep="stay")
            await caller.ask("sleep", m.VmRequest(vm_id=vm_id), m.Done)
            woken = len(vmm.made)

            async def only_the_woken(_: object, woken: int = woken) -> None:
                if len(vmm.made) > woken:
                    vmm.odd.clear()

            vmm.odd[frame], vmm.on_wake = habit.encode(), only_the_woken
            assert (await caller.run(vm_id, f"echo {habit}")).stdout == f"{habit}\n".encode()
            assert [vm.died.done() for vm in vmm.made[woken:]] == [True, False]
            assert (
                "did not answer after it was woken"
                in (await caller.told(m.VmChanged, vm_id=vm_id, state="running", about="woken")).reason
            )
            assert "lost its memory" in str((await caller.ended(job_id)).error)


async def test_a_guest_that_never_answers_again_sleeps_on_and_tells_who_wakes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "GREETING_S", 0.3)
    vmm = ScriptedVmm()
    async with world(tmp_path, vmm) as caller:
        vm_id = await put_to_sleep(caller)
        for habit in HABITS:
            vmm.odd[FrameType.RESET] = habit.encode()
            with pytest.raises(Problem):
                await caller.exec(vm_id, "echo no")
            assert await state(caller, vm_id) == "sleeping"
            assert all(vm.died.done() for vm in vmm.made), "nothing of it is left running"
        vmm.odd.clear()
        assert (await caller.run(vm_id, "echo fine")).stdout == b"fine\n"


async def test_a_guest_that_breaks_the_protocol_while_it_falls_asleep_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifeline, "DEATH_S", 0.1)
    vmm = ScriptedVmm()
    async with world(tmp_path, vmm) as caller:
        other, _ = await caller.start(None, keep="stay")
        for habit in ("garbage", "huge", "close"):
            vm_id, job_id = await caller.start("wait", keep="stay")
            vmm.odd[FrameType.FLUSH] = habit.encode()
            with pytest.raises(Problem):
                await caller.ask("sleep", m.VmRequest(vm_id=vm_id), m.Done)
            failed = await caller.told(m.VmChanged, vm_id=vm_id, state="failed")
            assert (await caller.ended(job_id)).error == failed.reason
        vmm.odd.clear()
        await caller.ask("sleep", m.VmRequest(vm_id=other), m.Done)


async def test_a_guest_that_does_not_answer_while_it_falls_asleep_stays_awake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleeper, "FLUSH_S", 0.3)
    vmm = ScriptedVmm()
    async with world(tmp_path, vmm, stop_grace_s=0) as caller:
        vm_id, _ = await caller.start("wait", keep="stay")
        vmm.odd[FrameType.FLUSH] = b"mute"
        with pytest.raises(Problem) as caught:
            await caller.ask("sleep", m.VmRequest(vm_id=vm_id), m.Done)
        assert "did not answer in time" in caught.value.message
        assert await state(caller, vm_id) == "running"
