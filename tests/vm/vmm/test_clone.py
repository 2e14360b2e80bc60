"""Clones of a template: what they are, and how they end."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from pathlib import Path

import pytest

from mags.host.guest import Channel, Configure
from mags.host.images import ImageStore
from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.qemu.vm import GUEST_ENDED, QemuVm
from mags.host.vmm.qemu.vmm import BASE, IMAGE
from mags.host.vmm.spec import VmSpec, WorkDisk
from tests.kit import vms
from tests.kit.cache import CACHE
from tests.kit.vms import TIMEOUT, UID, Running

pytestmark = pytest.mark.vm


async def test_a_clone_runs_scripts_on_a_disk_of_its_own(vmm: QemuVmm, running: Running, tmp_path: Path) -> None:
    ended, output = await running.run("echo mine > /root/file && cat /root/file && df -m / | tail -1")
    assert (ended.code, output.splitlines()[0]) == (0, "mine")
    async with vms.cloned(vmm, tmp_path) as other, vms.running(other) as second:
        ended, _ = await second.run("test -e /root/file")
    assert ended.code == 1


async def test_a_clone_may_have_any_disk(vmm: QemuVmm, images: ImageStore, template: VmSpec, tmp_path: Path) -> None:
    disk = WorkDisk(await images.blank(3), 3 << 30)
    vm = await vmm.clone(template, tmp_path / "vm", namespace=None, uid=UID, work_disk=disk)
    try:
        async with vms.running(vm) as world:
            stats = await world.channel.stats()
            ended, _ = await world.run("dd if=/dev/zero of=/root/big bs=1M count=4 && sync")
    finally:
        await vm.destroy()
    assert ended.code == 0
    assert 2.5 * 2**30 < stats.disk_total <= 3 * 2**30


async def test_a_disk_of_another_size_needs_no_template_of_its_own(
    vmm: QemuVmm, template: VmSpec, tmp_path: Path
) -> None:
    spec = dataclasses.replace(template, disk_gb=7)
    async with vms.cloned(vmm, tmp_path, spec=spec) as vm, vms.running(vm) as world:
        assert not world.channel.hello.root_mounted
        stats = await world.channel.stats()
    assert 6 * 2**30 < stats.disk_total <= 7 * 2**30


async def test_a_disk_is_mounted_when_its_driver_has_heard_of_its_size(
    vmm: QemuVmm, template: VmSpec, tmp_path: Path
) -> None:
    """As it hears of it later than the agent, on a busy machine by milliseconds."""
    size = 9 << 30
    async with vms.cloned(vmm, tmp_path, spec=dataclasses.replace(template, disk_gb=7)) as vm:
        channel = await Channel.connect(vm.channel_path, timeout=TIMEOUT)
        try:
            wish = Configure(root=True, grow=True, disk_bytes=size)
            configuring = asyncio.create_task(channel.configure(wish, timeout=TIMEOUT))
            await asyncio.wait({configuring}, timeout=0.5)
            assert not configuring.done()
            await vm.resize_disk(size)
            await configuring
            stats = await channel.stats()
        finally:
            await channel.aclose()
    assert 8 * 2**30 < stats.disk_total <= size


async def test_a_clone_of_a_mounted_root_keeps_its_files_when_the_template_is_replaced(
    vmm: QemuVmm, running: Running
) -> None:
    assert running.channel.hello.root_mounted
    for name in (BASE, IMAGE):
        assert (running.vm.directory / name).stat().st_nlink > 1 or not _same_device(running.vm.directory)
    ended, output = await running.run("cat /etc/hostname; touch /etc/new; sync; ls -l /etc/new /bin/busybox")
    assert (ended.code, output.splitlines()[0]) == (0, "test")


def _same_device(directory: Path) -> bool:
    return directory.stat().st_dev == CACHE.stat().st_dev


async def test_qemu_has_no_rights(running: Running) -> None:
    pid = running.vm.pid
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    root = Path(f"/proc/{pid}/root")
    assert root.readlink() == running.vm.directory / "root"
    assert list(root.iterdir()) == []
    assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    assert os.getsid(pid) == pid


async def test_qemu_inherits_nothing_by_accident(vmm: QemuVmm, template: VmSpec, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    with secret.open() as file:
        async with vms.cloned(vmm, tmp_path, spec=template) as vm:
            open_files = [str(path.readlink()) for path in Path(f"/proc/{vm.pid}/fd").iterdir()]
        assert file.fileno() > 2
    assert str(secret) not in open_files
    assert open_files.count("/dev/null") >= 2


async def test_a_paused_vm_does_not_answer_until_it_is_resumed(running: Running) -> None:
    await running.vm.pause()
    ping = asyncio.ensure_future(running.channel.ping())
    done, _ = await asyncio.wait((ping,), timeout=0.5)
    assert not done
    await running.vm.resume()
    async with asyncio.timeout(TIMEOUT):
        await ping


async def test_a_killed_vm_is_dead_and_may_be_killed_again(vm: QemuVm) -> None:
    await vm.kill()
    await vm.kill()
    assert "signal 9" in vm.died.result()
    with pytest.raises(VmmError):
        await vm.pause()


async def test_a_qemu_that_somebody_kills_is_noticed(vm: QemuVm) -> None:
    os.kill(vm.pid, signal.SIGKILL)
    async with asyncio.timeout(TIMEOUT):
        assert "signal 9" in await vm.died


@pytest.mark.parametrize("end", ["reboot -f", "echo c > /proc/sysrq-trigger"])
async def test_a_guest_that_ends_itself_is_noticed(running: Running, end: str) -> None:
    script = f"echo 1 > /proc/sys/kernel/printk; echo last words > /dev/ttyS0; sync; {end}; sleep 60"
    asking = asyncio.ensure_future(running.run(script))
    async with asyncio.timeout(TIMEOUT):
        assert await running.vm.died == GUEST_ENDED
    assert "last words" in await running.vm.console()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.exception() is not None


async def test_the_console_is_bounded(running: Running) -> None:
    await running.run("dd if=/dev/zero bs=1k count=200 2>/dev/null | tr '\\0' x > /dev/ttyS0; echo end > /dev/ttyS0")
    text = await running.vm.console()
    assert len(text) <= 1 << 16
    assert text.rstrip().endswith("end")


async def test_destroying_a_vm_leaves_nothing(vmm: QemuVmm, template: VmSpec, tmp_path: Path) -> None:
    vm = await vmm.clone(template, tmp_path / "vm", namespace=None, uid=UID)
    assert await vm.memory_mb() > 5
    await vm.destroy()
    assert not vm.directory.exists()
    assert not Path(f"/proc/{vm.pid}").exists()
    assert await vm.memory_mb() == 0


async def test_a_clone_that_fails_leaves_nothing(vmm: QemuVmm, template: VmSpec, tmp_path: Path) -> None:
    class Full:
        pid = 0

        def attach(self, pid: int) -> None:
            self.pid = pid
            raise OSError("no more groups")

    group = Full()
    with pytest.raises(VmmError, match="no more groups"):
        await vmm.clone(template, tmp_path / "vm", namespace=None, uid=UID, group=group)
    assert not (tmp_path / "vm").exists()
    assert not Path(f"/proc/{group.pid}").exists()


async def test_a_path_that_is_too_long_for_sockets_is_refused(vmm: QemuVmm, template: VmSpec, tmp_path: Path) -> None:
    with pytest.raises(VmmError, match="too long"):
        await vmm.clone(template, tmp_path / ("x" * 120), namespace=None, uid=UID)
