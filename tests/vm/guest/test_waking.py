"""The agent after a sleep: it hears of the end of the host it knew, and of the next one, in any order."""

from __future__ import annotations

import pytest

from mags.host.guest import Channel, Exec
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.qemu.vm import QemuVm
from tests.guest.kit import collect, read_until
from tests.kit import vms
from tests.kit.vms import SPEC, TIMEOUT, UID

pytestmark = pytest.mark.vm

NIGHTS = 5


async def test_it_answers_the_first_greeting_of_every_morning(
    vmm: QemuVmm, vm: QemuVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it fell asleep in full flow, so that its channel was cut in the middle of a frame."""
    monkeypatch.setattr("mags.host.guest.channel.THOROUGH_AFTER", ())
    monkeypatch.setattr("mags.host.guest.channel.RECONNECT_AFTER", 2 * TIMEOUT)
    async with vms.running(vm) as world:
        process = await world.channel.exec(Exec(script=b"yes 0123456789", window=1 << 20))
        await read_until(process, b"0123456789\n")
    try:
        for _ in range(NIGHTS):
            await vm.save()
            vm = await vmm.wake(SPEC, vm.directory, namespace=None, uid=UID)
            await vm.resume()
            channel = await Channel.connect(vm.channel_path, timeout=TIMEOUT)
            (held,) = channel.hello.processes
            assert held.running
            again = channel.attach(held.id, held.acknowledged)
            await read_until(again, b"0123456789\n")
            await channel.aclose()
        channel = await Channel.connect(vm.channel_path, timeout=TIMEOUT)
        (held,) = channel.hello.processes
        await channel.attach(held.id, held.acknowledged).release()
        assert (await collect(await channel.exec(Exec(script=b"echo fine")))).stdout == b"fine\n"
        await channel.aclose()
    finally:
        await vm.destroy()
