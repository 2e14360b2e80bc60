"""The host program with scripted guests: hostile ones, and many at once. NATS and networks are real."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from mags.host import remains
from mags.host.app import serve
from mags.host.config import Settings
from mags.host.images import ImageStore
from mags.host.machines import departure
from mags.host.machines import pool as pools
from mags.host.machines.capacity import Memory, meminfo
from mags.host.machines.claim import NameTaken, claim
from mags.host.vmm.driver import VmmError
from mags.host.vmm.spec import VmSpec
from mags.kit.nats import connect
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from tests.kit.host_world import HOST_ID, PATIENCE, Caller
from tests.kit.nats_server import nats_server
from tests.kit.scripted_vmm import ScriptedVmm


@asynccontextmanager
async def world(
    folder: Path,
    vmm: ScriptedVmm,
    *,
    leave: asyncio.Event | None = None,
    memory: Memory = meminfo,
    **values: object,
) -> AsyncIterator[Caller]:
    """A host program in this process; at its end every VM is gone."""
    (folder / "nats").mkdir()
    async with nats_server(folder / "nats", jetstream=True) as url:
        settings = Settings.model_validate(
            {
                "host_id": HOST_ID,
                "nats_url": SecretStr(url),
                "data_dir": folder / "data",
                "pool_target": 0,
                "namespace_target": 1,
                "memory_reserve_mb": 0,
                "disk_reserve_gb": 0,
                **values,
            }
        )
        settings.state.mkdir(parents=True)
        stop = asyncio.Event()
        images = ImageStore(folder / "cache", folder / "agent")
        program = asyncio.create_task(serve(settings, vmm, images, stop, leave=leave, memory=memory))
        try:
            async with Caller.connect(url) as caller:
                await caller.ready()
                yield caller
                if leave is None:
                    await caller.end_all()
        finally:
            if leave is None or not leave.is_set():
                stop.set()
            async with asyncio.timeout(PATIENCE):
                await program
            await remains.clear(settings.state, settings.runtime_dir)  # those asleep keep their networks


async def put_to_sleep(caller: Caller) -> str:
    vm_id, _ = await caller.start(None, keep="stay")
    await caller.ask("sleep", m.VmRequest(vm_id=vm_id), m.Done)
    return vm_id


async def wake(caller: Caller, vm_id: str) -> None:
    await caller.ask("wake", m.VmRequest(vm_id=vm_id), m.Done)


async def state(caller: Caller, vm_id: str) -> str:
    listed = await caller.ask("list", m.Empty(), m.VmList)
    return next(vm.state for vm in listed.vms if vm.vm_id == vm_id)


MISBEHAVIOUR = {
    "garbage": "protocol",
    "huge": "protocol",
    "hole": "protocol",
    "flood": "protocol",
    "stranger": "protocol",
    "lie": "protocol",
    "close": "ended",
}


async def test_a_guest_that_misbehaves_costs_its_vm_and_nothing_else(tmp_path: Path) -> None:
    async with world(tmp_path, ScriptedVmm()) as caller:
        other, _ = await caller.start("wait", keep="stay")

        async def misbehave(script: str, said: str) -> None:
            vm_id, _ = await caller.start("wait", keep="stay")
            ended = await caller.run(vm_id, script)
            assert ended.exit_code is None and said in (ended.error or ""), script
            failed = await caller.told(m.VmChanged, vm_id=vm_id, state="failed")
            assert failed.reason == ended.error

        await asyncio.gather(*(misbehave(*each) for each in MISBEHAVIOUR.items()))
        assert (await caller.run(other, "echo fine")).stdout == b"fine\n"


async def test_a_guest_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    async with world(tmp_path, ScriptedVmm(), pulse_s=0.2, pulse_deadline_s=1) as caller:
        _, job_id = await caller.start("mute")
        ended = await caller.ended(job_id)
        assert ended.exit_code is None


async def test_a_hypervisor_that_dies_ends_its_job_with_the_reason(tmp_path: Path) -> None:
    vmm = ScriptedVmm()
    async with world(tmp_path, vmm) as caller:
        vm_id, job_id = await caller.start("wait")
        vmm.made[0].died.set_result("QEMU was killed by signal 9")
        ended = await caller.ended(job_id)
        assert ended.error == "The VM ended unexpectedly: QEMU was killed by signal 9."
        assert ended.stdout == b"waiting\n"
        await caller.told(m.VmChanged, vm_id=vm_id, state="failed")


async def test_two_hundred_starts_at_once_are_each_carried_out_once(tmp_path: Path) -> None:
    count = 200
    at_once = highest = 0

    async def before(_: VmSpec) -> None:
        nonlocal at_once, highest
        at_once += 1
        highest = max(highest, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1

    vmm = ScriptedVmm(before)
    async with world(tmp_path, vmm, clones_at_once=5) as caller:
        started = await asyncio.gather(*(caller.start(f"echo {number}") for number in range(count)))
        for number, (_, job_id) in enumerate(started):
            event = await caller.told(m.JobEnded, job_id=job_id)
            assert event.exit_code == 0
            if number % 20 == 0:
                assert (await caller.ended(job_id)).stdout == f"{number}\n".encode()
        for vm_id, _ in started:
            await caller.told(m.VmChanged, vm_id=vm_id, state="gone")
        assert len(vmm.made) == count and highest <= 5
        assert sum(isinstance(event, m.JobEnded) for event in caller.events) == count


async def test_a_full_host_refuses_new_vms_and_lets_the_others_run(tmp_path: Path) -> None:
    async with world(tmp_path, ScriptedVmm(), max_vms=1) as caller:
        vm_id, _ = await caller.start("wait", keep="stay")
        with pytest.raises(Problem) as caught:
            await caller.start("echo no")
        assert caught.value.code == "no_capacity" and caught.value.details["retry_after"]
        presence = await caller.presence()
        assert not presence.accepting and "1 VMs" in presence.reason
        assert (await caller.run(vm_id, "echo on")).stdout == b"on\n"
    assert presence.busy_vms == 1


async def test_a_disk_that_is_full_is_said(tmp_path: Path) -> None:
    async with world(tmp_path, ScriptedVmm(), disk_reserve_gb=1e9) as caller:
        with pytest.raises(Problem) as caught:
            await caller.start("echo no")
        assert caught.value.code == "no_capacity" and "disk" in caught.value.message
        presence = await caller.presence()
        assert not presence.accepting and "disk" in presence.reason


async def test_a_start_that_fails_may_be_tried_again(tmp_path: Path) -> None:
    failures = 1

    async def before(_: VmSpec) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise VmmError("QEMU did not start.")

    async with world(tmp_path, ScriptedVmm(before)) as caller:
        with pytest.raises(Problem) as caught:
            await caller.start("echo one", vm_id="v", job_id="j")
        assert caught.value.code == "unavailable" and caught.value.message == "QEMU did not start."
        await caller.start("echo one", vm_id="v", job_id="j")
        assert (await caller.ended("j")).stdout == b"one\n"


async def test_a_stop_interrupts_a_vm_that_comes_up(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def before(_: VmSpec) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with world(tmp_path, ScriptedVmm(before)) as caller:
        starting = asyncio.create_task(caller.start("echo no", vm_id="v"))
        await begun.wait()
        await caller.stop("v")
        with pytest.raises(Problem) as caught:
            await starting
        assert caught.value.code == "gone"
        assert (await caller.ask("list", m.Empty(), m.VmList)).vms == []


async def test_a_parked_vm_falls_asleep_when_nobody_comes_and_ends_when_nobody_comes_at_all(tmp_path: Path) -> None:
    async with world(tmp_path, ScriptedVmm(), park_timeout_s=0.2, local_retention_s=0.2) as caller:
        vm_id, _ = await caller.start("echo one", keep="park")
        for state in ("parked", "sleeping", "gone"):
            await caller.told(m.VmChanged, vm_id=vm_id, state=state)


async def test_a_vm_that_sleeps_and_is_set_never_to_sleep_wakes(tmp_path: Path) -> None:
    async with world(tmp_path, ScriptedVmm()) as caller:
        vm_id = await put_to_sleep(caller)
        await caller.ask("adjust", m.Adjust(vm_id=vm_id, no_sleep=True), m.Done)
        await caller.told(m.VmChanged, vm_id=vm_id, state="running")


async def test_a_vm_falls_asleep_when_its_host_says_unless_its_job_says_otherwise(tmp_path: Path) -> None:
    async with world(tmp_path, ScriptedVmm(), idle_timeout_s=0.3) as caller:
        own, _ = await caller.start(None, keep="stay", idle_timeout_s=3600)
        ordinary, _ = await caller.start(None, keep="stay")
        await caller.told(m.VmChanged, vm_id=ordinary, state="sleeping")
        assert await state(caller, own) == "running"


async def test_a_job_that_joins_a_vm_to_be_parked_makes_it_stay(tmp_path: Path) -> None:
    async with world(tmp_path, ScriptedVmm(), park_timeout_s=0.5) as caller:
        vm_id, job_id = await caller.start("wait", keep="park")
        assert (await caller.run(vm_id, "echo joined", keep="stay")).exit_code == 0
        await caller.ask("cancel", m.Cancel(vm_id=vm_id, job_id=job_id), m.Done)
        await asyncio.sleep(1.0)
        (report,) = (await caller.ask("list", m.Empty(), m.VmList)).vms
        assert report.state == "running"


async def test_a_host_that_is_to_leave_waits_for_scripts_and_puts_the_rest_to_sleep(tmp_path: Path) -> None:
    leave = asyncio.Event()
    async with world(tmp_path, ScriptedVmm(), leave=leave) as caller:
        runs, _ = await caller.start("wait")
        parked, _ = await caller.start("echo one", keep="park")
        await caller.told(m.VmChanged, vm_id=parked, state="parked")
        stays, _ = await caller.start("echo two", keep="stay")
        leave.set()
        for vm_id in (parked, stays):
            await caller.told(m.VmChanged, vm_id=vm_id, state="sleeping")
        with pytest.raises(Problem, match="taken out of service") as refused:
            await caller.start("echo three")
        assert refused.value.code == "no_capacity"
        reports = (await caller.ask("list", m.Empty(), m.VmList)).vms
        assert {report.vm_id: report.state for report in reports}[runs] == "running"
        await caller.stop(runs)


async def test_a_host_that_is_to_leave_does_not_wait_for_vms_that_stand_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departure, "STILL_S", 0.2)
    vmm, leave = ScriptedVmm(), asyncio.Event()
    async with world(tmp_path, vmm, leave=leave) as caller:
        runs, job_id = await caller.start("wait")
        vmm.made[0].stall.begin("its disk is away")
        leave.set()
        await caller.told(m.VmChanged, vm_id=runs, state="gone")
        assert (await caller.ended(job_id)).error


async def test_a_second_program_of_the_same_name_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path, ScriptedVmm()) as caller:
        url = caller.client.connected_url
        assert url is not None
        second = await connect(url.geturl(), name="second")
        with pytest.raises(NameTaken, match="MAGS_HOST_HOST_ID"):
            await claim(second, HOST_ID)
        await claim(second, "another")
        with pytest.raises(NameTaken):
            await claim(caller.client, "another")
        await second.close()
        await claim(caller.client, "another")
        assert (await caller.ask("list", m.Empty(), m.VmList)).vms == []


async def test_the_pool_is_filled_taken_from_and_filled_again(tmp_path: Path) -> None:
    vmm = ScriptedVmm()
    async with world(tmp_path, vmm, pool_target=2, pool_memory_mb=256, pool_quiet_s=0, pool_max_load=1000) as caller:
        await caller.pool_has(2)
        # One dies while it waits: it is not handed out.
        vmm.made[0].died.set_result("killed")
        started = await caller.ask(
            "start",
            m.Start(
                vm_id="v",
                spec=m.VmSpec(memory_mb=256),
                owner="o",
                script=m.Script(job_id="j", script="echo fast"),
            ),
            m.Started,
        )
        assert started.start_kind == "pool"
        assert (await caller.ended("j")).stdout == b"fast\n"
        await caller.pool_has(2)
        assert len(vmm.made) == 4


async def test_the_pool_is_not_refilled_on_a_busy_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus, load, looks = os.cpu_count() or 1, 0.5, 0

    def getloadavg() -> tuple[float, float, float]:
        nonlocal looks
        looks += 1
        return load * cpus, 0, 0

    monkeypatch.setattr(os, "getloadavg", getloadavg)
    monkeypatch.setattr(pools, "LOOK_S", 0.01)
    vmm = ScriptedVmm()
    async with world(tmp_path, vmm, pool_target=1, pool_memory_mb=256, pool_quiet_s=0, pool_max_load=2) as caller:
        await caller.pool_has(1)
        load = 2.1
        started = await caller.ask(
            "start",
            m.Start(
                vm_id="v", spec=m.VmSpec(memory_mb=256), owner="o", script=m.Script(job_id="j", script="echo fast")
            ),
            m.Started,
        )
        assert started.start_kind == "pool"
        assert (await caller.ended("j")).stdout == b"fast\n"
        enough = looks + 50
        async with asyncio.timeout(PATIENCE):
            while looks < enough:
                await asyncio.sleep(0.01)
        assert len(vmm.made) == 1
        load = 1.9
        await caller.pool_has(1)
        assert len(vmm.made) == 2
