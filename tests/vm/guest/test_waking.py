"""The agent after a time in which it did not run: it hears late, or never, that the host it knew has gone."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios

import pytest

from mags.host.guest import Channel, Exec
from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.qemu.vm import QemuVm
from tests.guest.kit import collect, read_until
from tests.kit import vms
from tests.kit.vms import SPEC, TIMEOUT, UID

pytestmark = pytest.mark.vm

NIGHTS = 4
ONCE = (2 * TIMEOUT,)
"""The patience of a host that greets but once."""
TWICE = (0.5, 2 * TIMEOUT)


async def full_flow(vm: QemuVm) -> None:
    """Let the guest write without an end, a megabyte ahead of its reader, to whoever attaches."""
    async with vms.running(vm) as world:
        process = await world.channel.exec(Exec(script=b"yes 0123456789", window=1 << 20))
        await read_until(process, b"0123456789\n")


async def attached(vm: QemuVm) -> Channel:
    """A host that reads what it writes."""
    channel = await Channel.connect(vm.channel_path, timeout=TIMEOUT)
    (held,) = channel.hello.processes
    assert held.running
    await read_until(channel.attach(held.id, held.acknowledged), b"0123456789\n")
    return channel


async def stuck(channel: Channel) -> None:
    """Read no more, until QEMU can write no more and holds back what the guest writes."""
    channel._wire.transport.pause_reading()
    waiting, before = unread(channel), -1
    while waiting < 1 << 16 or waiting != before:
        await asyncio.sleep(0.1)
        waiting, before = unread(channel), waiting


def unread(channel: Channel) -> int:
    """Bytes in the socket."""
    buffer = fcntl.ioctl(channel._wire.transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
    return int(struct.unpack("i", buffer)[0])


async def test_it_answers_the_first_greeting_of_every_morning(
    vmm: QemuVmm, vm: QemuVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it fell asleep in full flow, so that its channel was cut in the middle of a frame."""
    await full_flow(vm)
    monkeypatch.setattr("mags.host.guest.channel.PATIENCE", ONCE)
    try:
        for _ in range(NIGHTS):
            channel = await attached(vm)
            await stuck(channel)
            with monkeypatch.context() as hasty:
                hasty.setattr("mags.host.vmm.qemu.vm.LEAVE_TIMEOUT", 0.05)
                with pytest.raises(VmmError, match="still in use"):
                    await vm.save()
            await channel.aclose()
            await vm.save()
            vm = await vmm.wake(SPEC, vm.directory, namespace=None, uid=UID)
            await vm.resume()
        channel = await attached(vm)
        await channel.processes[channel.hello.processes[0].id].release()
        assert (await collect(await channel.exec(Exec(script=b"echo fine")))).stdout == b"fine\n"
        await channel.aclose()
    finally:
        await vm.destroy()


async def test_the_host_after_one_that_left_while_it_stood_still_is_answered(
    vm: QemuVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the host program dies while the VM waits for its disk. It takes a second connection, and no third."""
    await full_flow(vm)
    monkeypatch.setattr("mags.host.guest.channel.PATIENCE", TWICE)
    for _ in range(2):
        channel = await attached(vm)
        await stuck(channel)
        await vm.pause()
        await channel.aclose()
        await vm.left_alone()
        await vm.resume()
    await (await attached(vm)).aclose()
