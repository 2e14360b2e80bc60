"""The end of a VM is noticed, whatever its QEMU answers: a guest may have taken that over."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu import process as processes
from mags.host.vmm.qemu.process import Inheritance, spawn
from mags.host.vmm.qemu.vm import GUEST_ENDED, QemuVm
from mags.host.vmm.spec import VmSpec
from tests.kit.monitor import Qemu, monitored


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[QemuVm, Qemu]]:
    """A VM whose process does nothing, with its monitor in our hands; it runs."""
    process = spawn(["/bin/sleep", "600"], tmp_path, Inheritance(), namespace=None, group=None)
    qmp, qemu = monitored()
    vm = QemuVm(VmSpec("alpine"), tmp_path, process, qmp)
    await qemu.answer("query-status", {"status": "running"})
    yield vm, qemu
    await process.kill()
    async with asyncio.timeout(60):
        await asyncio.shield(vm.died)
    qemu.socket.close()


@pytest.mark.parametrize("answer", ["bm90aGluZw=", "\u00e9", 7, None, ["x"]])
async def test_a_console_that_is_none_does_not_hide_the_end(pair: tuple[QemuVm, Qemu], answer: object) -> None:
    vm, qemu = pair
    await qemu.say(event="SHUTDOWN", data={})
    await qemu.answer("ringbuf-read", answer)
    async with asyncio.timeout(60):
        assert await asyncio.shield(vm.died) == GUEST_ENDED
    assert await vm.console() == ""


async def test_a_console_that_is_none_is_an_error(pair: tuple[QemuVm, Qemu]) -> None:
    vm, qemu = pair
    reading = asyncio.ensure_future(vm.console())
    await qemu.answer("ringbuf-read", {"not": "text"})
    assert await reading == ""


@pytest.mark.parametrize("answer", [None, {}, "running", [1], {"status": None}])
async def test_a_vm_that_says_nonsense_of_its_state_is_ended(pair: tuple[QemuVm, Qemu], answer: object) -> None:
    vm, qemu = pair
    await qemu.say(event="STOP", data={})
    await qemu.answer("query-status", answer)
    async with asyncio.timeout(60):
        assert "signal 9" in await asyncio.shield(vm.died)


@pytest.mark.parametrize("answer", [None, [{"label": "agent"}], [7]])
async def test_nonsense_of_the_channel_is_an_error(pair: tuple[QemuVm, Qemu], answer: object) -> None:
    vm, qemu = pair
    asking = asyncio.ensure_future(vm.left_alone())
    await qemu.answer("query-chardev", answer)
    with pytest.raises(VmmError):
        await asking


async def test_an_end_that_takes_long_is_noticed_all_the_same(
    pair: tuple[QemuVm, Qemu], monkeypatch: pytest.MonkeyPatch
) -> None:
    vm, qemu = pair
    send = signal.pidfd_send_signal
    tries: list[int] = []

    def stubborn(pidfd: int, number: int) -> None:
        tries.append(number)
        if len(tries) > 2:
            send(pidfd, number)

    monkeypatch.setattr(processes, "END_TIMEOUT", 0.01)
    monkeypatch.setattr(signal, "pidfd_send_signal", stubborn)
    await qemu.say(event="SHUTDOWN", data={})
    await qemu.answer("ringbuf-read", "")
    async with asyncio.timeout(60):
        assert await asyncio.shield(vm.died) == GUEST_ENDED


async def test_a_vm_whose_monitor_breaks_is_ended(pair: tuple[QemuVm, Qemu]) -> None:
    vm, qemu = pair
    await qemu.write(b"[" * 200_000 + b"\n")
    async with asyncio.timeout(60):
        assert "signal 9" in await asyncio.shield(vm.died)
    with pytest.raises(VmmError):
        await vm.pause()
