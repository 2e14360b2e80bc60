"""A machine's memory saved and woken, by the driver alone."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from mags.host.guest import Channel, Configure, Offsets
from mags.host.vmm.driver import SnapshotUnusable, VmmError
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.qemu.vm import QemuVm
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
        "(exec 3>/root/open; i=0; while :; do i=$((i+1)); echo $i > /tmp/m/count; echo $i >&3; sleep 0.02; done) &"
    )
    directory = await asleep(running)
    assert vmm.asleep(directory) and await running.vm.died
    for _ in range(3):
        world = await woken(vmm, directory)
        try:
            assert not vmm.asleep(directory)
            script = "cat /tmp/m/file; a=$(cat /tmp/m/count); sleep 0.3; b=$(cat /tmp/m/count); test $b -gt $a && echo on"
            ended, output = await world.run(script + "; tail -1 /root/open | grep -c .; date +%s")
            assert (ended.code, output.split()[:3]) == (0, ["kept", "on", "1"])
            assert abs(int(output.split()[3]) - time.time()) < 60
        finally:
            await asleep(world)
    await (await woken(vmm, directory)).vm.destroy()
