"""What the system refuses the driver is an error of the driver's, whatever it was about to do."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from mags.host.vmm.driver import SnapshotUnusable, VmmError
from mags.host.vmm.qemu import QemuVmm, record, snapshot
from mags.host.vmm.qemu import process as processes
from mags.host.vmm.qemu.machine import Hypervisor
from mags.host.vmm.qemu.vmm import IMAGE
from mags.host.vmm.spec import VmSpec
from tests.kit.monitor import monitored


class Parts:
    """In the place of what builds templates."""

    def __init__(self) -> None:
        self.hypervisor = Hypervisor.parse(Path("/bin/sleep"), "QEMU emulator version 8.2.0")
        self.images = self.verdict = None


@pytest.fixture
def vmm() -> QemuVmm:
    parts: Any = Parts()
    return QemuVmm(parts)


async def test_a_vm_that_cannot_be_woken_for_want_of_a_file_sleeps_on(
    vmm: QemuVmm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def whole(*_: object, **__: object) -> None: ...

    monkeypatch.setattr(snapshot, "check", whole)
    (tmp_path / IMAGE).touch()
    with pytest.raises(VmmError, match="can't be woken now") as caught:
        await vmm.wake(VmSpec("alpine"), tmp_path, namespace=None, uid=os.getuid())
    assert not isinstance(caught.value, SnapshotUnusable)


async def test_a_record_that_cannot_be_read_now_is_no_dead_vm(vmm: QemuVmm, tmp_path: Path) -> None:
    (tmp_path / record.NAME).mkdir()
    with pytest.raises(VmmError, match="can't be told now"):
        await vmm.adopt(tmp_path)


@pytest.mark.parametrize("answer", [None, {}, {"status": ["running"]}, "running"])
async def test_a_hypervisor_that_says_nonsense_is_not_adopted_but_ended(
    vmm: QemuVmm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    process = processes.spawn(["/bin/sleep", "600"], tmp_path, processes.Inheritance(), namespace=None, group=None)
    qmp, qemu = monitored()
    started = record.Record(VmSpec("alpine"), 0, process.pid, process.started, "", "tcg", "8.2.0")
    record.save(tmp_path, started)
    process.release()

    async def connected(*_: object, **__: object) -> Any:
        return qmp

    monkeypatch.setattr("mags.host.vmm.qemu.qmp.Qmp.connect", connected)
    answering = asyncio.ensure_future(qemu.answer("query-status", answer))
    try:
        assert await vmm.adopt(tmp_path) is None
        await answering
        with pytest.raises(ProcessLookupError):
            processes.start_time(process.pid)
    finally:
        qemu.socket.close()
