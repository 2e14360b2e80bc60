"""A machine's memory saved and woken, by the driver alone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from mags.host.guest import Channel, Configure
from mags.host.vmm.driver import SnapshotUnusable, VmmError
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.spec import VmSpec
from tests.kit import vms
from tests.kit.vms import SPEC, TIMEOUT, UID, Running

pytestmark = pytest.mark.vm


async def asleep(world: Running) -> Path:
    """Put the VM to sleep; where it lies."""
    await world.channel.aclose()
    await world.vm.save()
    return world.vm.directory


async def woken(vmm: QemuVmm, directory: Path) -> Running:
    """The VM, awake, with its clock and entropy right."""
    vm = await vmm.wake(SPEC, directory, namespace=None, uid=UID)
    channel = await Channel.connect(vm.channel_path, timeout=TIMEOUT)
    await channel.configure(Configure(clock_ns=time.time_ns(), entropy=os.urandom(64)), timeout=TIMEOUT)
    return Running(vm, channel)


async def test_everything_goes_on_after_sleep(vmm: QemuVmm, running: Running) -> None:
    await running.run(
        "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && echo kept > /tmp/m/file;"
        "(exec 3>/root/open; i=0; while :; do i=$((i+1));"
        " echo $i > /tmp/m/next; mv /tmp/m/next /tmp/m/count; echo $i >&3; sleep 0.02; done) &"
    )
    directory = await asleep(running)
    assert vmm.asleep(directory) and await running.vm.died
    for _ in range(3):
        world = await woken(vmm, directory)
        try:
            assert not vmm.asleep(directory)
            script = (
                "cat /tmp/m/file; a=$(cat /tmp/m/count); sleep 0.3; b=$(cat /tmp/m/count); test $b -gt $a && echo on"
            )
            ended, output = await world.run(script + "; tail -1 /root/open | grep -c .; date +%s")
            assert (ended.code, output.split()[:3]) == (0, ["kept", "on", "1"])
            assert abs(int(output.split()[3]) - time.time()) < 60
        finally:
            await asleep(world)
    await (await woken(vmm, directory)).vm.destroy()


@pytest.mark.parametrize("file", ["memory", "devices", "asleep.json"])
async def test_a_damaged_image_starts_afresh_with_its_disk(vmm: QemuVmm, running: Running, file: str) -> None:
    await running.run("echo precious > /root/file; sync")
    directory = await asleep(running)
    path = directory / file
    path.write_bytes(path.read_bytes()[:-5] + b"wrong")
    with pytest.raises(SnapshotUnusable):
        await vmm.wake(SPEC, directory, namespace=None, uid=UID)
    vm = await vmm.restart(SPEC, directory, namespace=None, uid=UID)
    async with vms.running(vm) as world:
        ended, output = await world.run("cat /root/file")
        assert (ended.code, output) == (0, "precious\n")
    assert not vmm.asleep(directory)
    await vm.destroy()


async def test_states_that_are_wrong_but_look_right_are_refused(vmm: QemuVmm, running: Running) -> None:
    """The check sums fit, and QEMU does not take it."""
    directory = await asleep(running)
    devices = (directory / "devices").read_bytes()
    damaged = devices[: len(devices) // 2]
    (directory / "devices").write_bytes(damaged)
    meta = msgspec.json.decode((directory / "asleep.json").read_bytes())
    meta["devices_sha256"] = hashlib.sha256(damaged).hexdigest()
    (directory / "asleep.json").write_bytes(msgspec.json.encode(meta))
    with pytest.raises(SnapshotUnusable):
        await vmm.wake(SPEC, directory, namespace=None, uid=UID)
    assert await vmm.adopt(directory) is None


async def test_after_a_restart_of_the_machine_only_what_was_flushed_counts(vmm: QemuVmm, running: Running) -> None:
    directory = await asleep(running)

    def boot(number: str) -> None:
        meta = msgspec.json.decode((directory / "asleep.json").read_bytes())
        (directory / "asleep.json").write_bytes(msgspec.json.encode({**meta, "boot_id": number}))

    boot("another")
    with pytest.raises(SnapshotUnusable, match="restarted"):
        await vmm.wake(SPEC, directory, namespace=None, uid=UID)
    await vmm.flush(directory)
    world = await woken(vmm, directory)
    await vmm.flush(directory)
    assert not vmm.asleep(directory)
    await world.vm.destroy()


async def test_a_full_disk_leaves_it_running(vmm: QemuVmm, template: VmSpec, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", place], check=True, timeout=30)
    try:
        async with vms.cloned(vmm, place, spec=template) as vm, vms.running(vm) as world:
            with pytest.raises(VmmError, match="disk is full"):
                await vm.save()
            assert not vmm.asleep(vm.directory)
            ended, output = await world.run("echo still here")
            assert (ended.code, output) == (0, "still here\n")
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, timeout=30)


async def test_a_vm_half_asleep_is_found_again(vmm: QemuVmm, template: VmSpec, tmp_path: Path) -> None:
    """The host program dies at any step: the VM is either asleep or as it was."""
    vm = await vmm.clone(template, tmp_path / "vm", namespace=None, uid=UID)
    async with vms.running(vm) as world:
        await world.run("echo here > /dev/shm/mark 2>/dev/null || echo here > /tmp/mark")
    # Before it is saved: paused, with half of an image.
    await vm.copy_base()
    await vm.pause()
    (vm.directory / "devices").write_bytes(b"half")
    await vm.release()
    adopted = await vmm.adopt(vm.directory)
    assert adopted is not None and not vmm.asleep(vm.directory)
    await adopted.resume()
    async with vms.running(adopted) as world:
        # Saved, and its process still there.
        await world.channel.aclose()
        kill, adopted.kill = adopted.kill, nothing  # type: ignore[method-assign]
        await adopted.save()
        adopted.kill = kill  # type: ignore[method-assign]
        await adopted.release()
    assert await vmm.adopt(vm.directory) is None
    assert vmm.asleep(vm.directory)
    last = await woken(vmm, vm.directory)
    _, output = await last.run("cat /dev/shm/mark /tmp/mark 2>/dev/null")
    assert output == "here\n"
    await last.vm.destroy()


async def nothing() -> None:
    """A host program that was killed does not do the next thing."""


async def test_a_flush_that_is_late_does_not_touch_a_newer_sleep(vmm: QemuVmm, running: Running) -> None:
    directory = await asleep(running)
    late = asyncio.create_task(vmm.flush(directory))
    await asyncio.sleep(0)
    world = await woken(vmm, directory)
    await asleep(world)
    await late
    world = await woken(vmm, directory)
    ended, output = await world.run("echo here")
    assert (ended.code, output) == (0, "here\n")
    await world.vm.destroy()
