"""KVM is used where a guest has booted under it, and only there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu.accelerator import AUTOMATIC, Verdict, decide, known, recall
from mags.host.vmm.qemu.machine import KVM, TCG, Hypervisor

QEMU = Hypervisor(Path("/usr/bin/qemu"), "10.0.2", (10, 0, 2))


class Trial:
    """A trial boot that works, or fails with a reason."""

    def __init__(self, failure: str | None = None) -> None:
        self.failure, self.boots = failure, 0

    async def __call__(self) -> None:
        self.boots += 1
        if self.failure is not None:
            raise VmmError(self.failure)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "kvm"
    path.write_bytes(b"")
    return path


async def choose(state: Path, trial: Trial, device: Path, *, setting: str = AUTOMATIC, qemu: Hypervisor = QEMU) -> str:
    return (known(setting, state, qemu, device) or await decide(state, qemu, trial)).accelerator


async def test_kvm_is_used_when_a_guest_boots_under_it(tmp_path: Path, device: Path) -> None:
    trial = Trial()
    assert await choose(tmp_path, trial, device) == KVM
    assert await choose(tmp_path, trial, device) == KVM
    assert trial.boots == 1


async def test_a_kvm_that_only_looks_alive_is_not_used(tmp_path: Path, device: Path) -> None:
    trial = Trial("The guest did not boot within 20 s.")
    assert await choose(tmp_path, trial, device) == TCG
    verdict = recall(tmp_path)
    assert verdict is not None and "did not boot" in verdict.reason
    assert await choose(tmp_path, trial, device) == TCG
    assert trial.boots == 1


async def test_without_a_device_nothing_is_tried_nor_remembered(tmp_path: Path) -> None:
    trial = Trial()
    assert await choose(tmp_path, trial, tmp_path / "missing") == TCG
    assert (trial.boots, recall(tmp_path)) == (0, None)


async def test_another_qemu_or_kernel_is_tried_anew(tmp_path: Path, device: Path) -> None:
    trial = Trial()
    await choose(tmp_path, Trial("broken"), device)
    assert await choose(tmp_path, trial, device, qemu=Hypervisor(QEMU.program, "10.1.0", (10, 1))) == KVM
    verdict = recall(tmp_path)
    assert verdict is not None
    other_kernel = msgspec.structs.replace(verdict, kernel="6.1.0-other", accelerator=TCG)
    (tmp_path / "accelerator.json").write_bytes(msgspec.json.encode(other_kernel))
    assert await choose(tmp_path, trial, device) == KVM
    assert trial.boots == 2


@pytest.mark.parametrize("setting", [KVM, TCG])
async def test_the_setting_decides_without_a_trial(tmp_path: Path, device: Path, setting: str) -> None:
    trial = Trial("never asked")
    assert await choose(tmp_path, trial, device, setting=setting) == setting
    assert trial.boots == 0


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"accelerator": 3}'])
def test_a_damaged_verdict_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "accelerator.json").write_bytes(content)
    assert recall(tmp_path) is None


def test_a_verdict_survives_its_file(tmp_path: Path) -> None:
    verdict = Verdict(TCG, "because", "6.1", "10.0")
    (tmp_path / "accelerator.json").write_bytes(msgspec.json.encode(verdict))
    assert recall(tmp_path) == verdict
