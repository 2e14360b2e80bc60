"""A host program that ends leaves its VMs running; the next one finds them again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from mags.host.guest import Channel, Exec
from mags.host.images import ImageStore
from mags.host.vmm.qemu import QemuVmm, record
from mags.host.vmm.qemu.process import MONITOR, find_by_name
from mags.host.vmm.qemu.qmp import Qmp
from mags.host.vmm.qemu.vm import QemuVm
from mags.host.vmm.spec import VmSpec
from tests.kit import vms
from tests.kit.vms import TIMEOUT, UID

pytestmark = pytest.mark.vm


@pytest.fixture
async def left(vmm: QemuVmm, template: VmSpec, tmp_path: Path) -> AsyncIterator[QemuVm]:
    """A VM whose host program has let go of it."""
    vm = await vmm.clone(template, tmp_path / "vm", namespace=None, uid=UID)
    await vm.release()
    yield vm
    if Path(f"/proc/{vm.pid}").exists():
        os.kill(vm.pid, signal.SIGKILL)


async def test_an_adopted_vm_goes_on(images: ImageStore, left: QemuVm) -> None:
    vm = await (await vms.open_vmm(images)).adopt(left.directory)
    assert vm is not None
    try:
        assert (vm.pid, vm.spec, vm.died.done()) == (left.pid, vms.SPEC, False)
        async with vms.running(vm) as world:
            _, output = await world.run("echo still here")
        assert output == "still here\n"
        await vm.pause()
        await vm.resume()
    finally:
        await vm.destroy()
    assert not Path(f"/proc/{left.pid}").exists()


async def test_the_channel_of_an_adopted_vm_knows_the_processes_that_run(vmm: QemuVmm, left: QemuVm) -> None:
    async with vms.running(left) as world:
        await world.channel.exec(Exec(script=b"sleep 600"))
        await world.channel.ping()
    vm = await vmm.adopt(left.directory)
    assert vm is not None
    channel = await Channel.connect(vm.channel_path, timeout=TIMEOUT)
    assert [process.running for process in channel.hello.processes] == [True]
    await channel.aclose()
    await vm.destroy()


async def test_a_dead_vm_is_not_adopted(vmm: QemuVmm, left: QemuVm) -> None:
    os.kill(left.pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, left.pid, 0)
    assert await vmm.adopt(left.directory) is None


async def test_a_guest_that_ended_meanwhile_is_cleaned_away(vmm: QemuVmm, left: QemuVm) -> None:
    qmp = await Qmp.connect(left.directory / MONITOR)
    with qmp.events("SHUTDOWN") as events:
        async with vms.running(left) as world:
            await world.channel.exec(Exec(script=b"reboot -f; sleep 60"))
            await qmp.first(events, timeout=TIMEOUT)
    await qmp.aclose()
    assert await vmm.adopt(left.directory) is None
    assert not Path(f"/proc/{left.pid}").exists()


async def test_a_process_that_only_has_the_same_pid_is_left_alone(vmm: QemuVmm, left: QemuVm) -> None:
    known = record.load(left.directory)
    assert known is not None
    record.save(left.directory, msgspec.structs.replace(known, started=known.started - 1))
    assert await vmm.adopt(left.directory) is None
    assert Path(f"/proc/{left.pid}").exists()


async def test_a_vm_that_died_in_its_making_is_found_and_ended(vmm: QemuVmm, left: QemuVm) -> None:
    (left.directory / record.NAME).unlink()
    assert find_by_name(vmm.hypervisor.program, str(left.directory)) == left.pid
    assert await vmm.adopt(left.directory) is None
    assert not Path(f"/proc/{left.pid}").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", b'{"pid": "x"}'])
async def test_a_damaged_record_is_no_vm(vmm: QemuVmm, tmp_path: Path, content: bytes) -> None:
    (tmp_path / record.NAME).write_bytes(content)
    assert await vmm.adopt(tmp_path) is None


async def test_a_directory_without_a_vm_is_no_vm(vmm: QemuVmm, tmp_path: Path) -> None:
    assert await vmm.adopt(tmp_path / "missing") is None
