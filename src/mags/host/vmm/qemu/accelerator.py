"""KVM or software emulation: decided by booting a guest, because a /dev/kvm may answer and yet not work.

The verdict of a trial is kept in STATE/accelerator.json and holds while the host's kernel and QEMU stay the same.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu.machine import KVM, TCG, Hypervisor
from mags.kit.files import write_atomic

log = logging.getLogger("mags.vmm")

DEVICE = Path("/dev/kvm")
AUTOMATIC = "auto"
TRIAL_TIMEOUT = 20.0
"""Seconds for a guest to boot under KVM; a working one needs about one."""


class Verdict(msgspec.Struct, frozen=True):
    accelerator: str
    reason: str
    kernel: str
    qemu: str


def known(setting: str, state: Path, hypervisor: Hypervisor, device: Path = DEVICE) -> Verdict | None:
    """What can be told without a trial: the setting ("kvm", "tcg"), the last verdict, that there is no KVM at all."""
    kernel, version = platform.release(), hypervisor.version
    if setting != AUTOMATIC:
        return Verdict(setting, "The setting says so.", kernel, version)
    remembered = recall(state)
    if remembered is not None and (remembered.kernel, remembered.qemu) == (kernel, version):
        return remembered
    if not os.access(device, os.R_OK | os.W_OK):
        # Not remembered: a module that is loaded later is seen at the next start.
        return Verdict(TCG, f"{device} is missing or not accessible.", kernel, version)
    return None


async def decide(state: Path, hypervisor: Hypervisor, trial: Callable[[], Awaitable[None]]) -> Verdict:
    """Try, and remember. trial: boots under KVM, VmmError when that fails."""
    kernel, version = platform.release(), hypervisor.version
    try:
        await trial()
    except VmmError as error:
        verdict = Verdict(TCG, f"A trial boot under KVM failed: {error}", kernel, version)
    else:
        verdict = Verdict(KVM, "A trial boot under KVM worked.", kernel, version)
    log.info("accelerator %s: %s", verdict.accelerator, verdict.reason)
    state.mkdir(parents=True, exist_ok=True)
    write_atomic(state / "accelerator.json", msgspec.json.encode(verdict), mode=0o644)
    return verdict


def recall(state: Path) -> Verdict | None:
    """The verdict of the last trial, if there was one."""
    try:
        return msgspec.json.decode((state / "accelerator.json").read_bytes(), type=Verdict)
    except (OSError, msgspec.DecodeError):
        return None
