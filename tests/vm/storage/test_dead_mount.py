"""The volume dies under a VM that reads its disk from it: the guest sees a delay, and no error."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from mags.host.guest import Channel
from mags.host.storage.errors import StorageUnavailable
from mags.host.storage.mount import Mount
from mags.host.vmm.qemu.qmp import QmpTimeout
from mags.host.vmm.qemu.vm import QemuVm
from mags.protocol.ids import new_id
from tests.kit import vms
from tests.vm.storage.conftest import Bench, Box

pytestmark = pytest.mark.vm

KERNEL_REMEMBERS_S = 1.5
"""For a second it asks no mount again for what it has just heard of a file."""
READ = "echo 3 > /proc/sys/vm/drop_caches; md5sum < /root/big"


async def with_base(bench: Bench, workspace: str) -> tuple[Box, str]:
    """A VM whose generation has a file of 20 MB, and the file's checksum."""
    first = await bench.start(bench.attachment(workspace))
    checksum = await first.run("head -c 20000000 /dev/urandom > /root/big; md5sum < /root/big")
    await first.syncer.sync()
    await bench.end(first)
    return await bench.start(bench.attachment(workspace)), checksum


def signal_volume(bench: Bench, number: signal.Signals) -> None:
    for pid in bench.engine.mount._processes():
        os.kill(pid, number)


def kill_volume(bench: Bench, image: Path) -> None:
    """Both processes at once; and the kernel forgets what it has of the image."""
    with image.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    signal_volume(bench, signal.SIGKILL)


async def test_reads_wait_for_the_mount_and_the_disk_goes_on(bench: Bench) -> None:
    workspace = new_id()
    box, checksum = await with_base(bench, workspace)
    for round_ in (1, 2):
        kill_volume(bench, box.attached.image)
        assert await box.run(READ) == checksum
        await box.vm.stall.ends()
        assert box.vm.stall.count == round_
    assert await box.run("dmesg | grep -ciE 'i/o error|ext4-fs error' || true") == "0\n"
    await box.run(
        "echo after > /root/after; dd if=/dev/zero of=/root/big bs=1k seek=3 count=1 conv=notrunc 2>/dev/null"
    )
    changed = await box.run(READ)
    assert changed != checksum
    await box.syncer.sync()
    await bench.end(box)
    again = await bench.start(bench.attachment(workspace))
    assert await again.run(f"{READ}; cat /root/after") == f"{changed}after\n"


async def test_vm_runs_on_when_the_volume_hangs_in_the_middle_of_a_sync(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = new_id()
    box, checksum = await with_base(bench, workspace)
    await box.run("echo 1 > /root/f")

    async def hang(size: int, *, anew: bool = False) -> Path:
        signal_volume(bench, signal.SIGSTOP)
        await asyncio.sleep(KERNEL_REMEMBERS_S)
        raise StorageUnavailable("The volume does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(box.attached, "begin", hang)
        try:
            with pytest.raises(StorageUnavailable):
                await box.syncer.sync()
            assert await box.run("echo 2 >> /root/f; cat /root/f") == "1\n2\n"
            assert not box.vm.stall.reason
            # Asked for the sizes of its files, the hypervisor hangs, and its VM: that is known and passes.
            with pytest.raises(QmpTimeout):
                await box.vm.qmp.execute("query-named-block-nodes", timeout=1)
            assert "query-named-block-nodes" in await box.vm.stall.begins()
        finally:
            signal_volume(bench, signal.SIGCONT)
    await box.vm.stall.ends()
    await box.syncer.sync()
    await bench.end(box)
    again = await bench.start(bench.attachment(workspace))
    assert await again.run(f"{READ}; cat /root/f") == f"{checksum}1\n2\n"


async def test_next_host_program_lets_a_stalled_vm_go_on(bench: Bench) -> None:
    """The mount is away for long, and the host program that owned the VM too."""
    box, checksum = await with_base(bench, new_id())
    await bench.engine.mount.leave()  # nobody mounts it anew
    kill_volume(bench, box.attached.image)
    reading = asyncio.create_task(box.attempt(READ))
    assert "Transport endpoint is not connected" in await box.vm.stall.begins()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await box.channel.aclose()
    await box.vm.release()
    box.vm.died.set_result("left to the next program")
    adopted = await bench.vmm.adopt(box.vm.directory)
    assert isinstance(adopted, QemuVm)
    bench._stack.push_async_callback(adopted.destroy)
    await adopted.stall.begins()
    bench.engine.mount = Mount(bench.engine.volume, bench.engine.mount.point)
    await bench.engine.mount.start()
    await adopted.stall.ends()
    channel = await Channel.connect(adopted.channel_path, timeout=vms.TIMEOUT)
    bench._stack.push_async_callback(channel.aclose)
    ended, output = await vms.run(channel, READ)
    assert (ended.code, output) == (0, checksum)
