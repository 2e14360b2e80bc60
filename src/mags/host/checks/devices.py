"""What the kernel offers: virtualisation, devices, control groups, users."""

from __future__ import annotations

import os
from pathlib import Path

from mags.host.checks.check import Check
from mags.host.isolation import Cgroups, UidPool
from mags.host.isolation.uids import BLOCK, unmapped
from mags.host.vmm.qemu.accelerator import recall

WANTED_CONTROLLERS = {"memory", "cpu", "pids"}


def kvm(state: Path, device: Path = Path("/dev/kvm")) -> Check:
    """state: the host program's directory, which holds the verdict of the trial boot."""
    verdict = recall(state)
    slow = "VMs run in software emulation (TCG), several times slower."
    if not device.exists():
        enable = "Enable virtualisation (of a VM: nested), then `modprobe kvm_intel` or `modprobe kvm_amd`."
        return Check("KVM", None, f"no {device}", f"{slow} {enable}")
    if not os.access(device, os.R_OK | os.W_OK):
        return Check("KVM", None, f"{device} is not accessible", f"{slow} Run as root.")
    if verdict is None:
        return Check("KVM", True, f"{device} is there; the first VM shows whether it works")
    if verdict.accelerator == "kvm":
        return Check("KVM", True, verdict.reason)
    again = f"To try again, remove {state / 'accelerator.json'}."
    return Check("KVM", None, verdict.reason, f"{slow} {again}")


def tun(device: Path = Path("/dev/net/tun")) -> Check:
    if device.is_char_device():
        return Check("tap devices", True, str(device))
    return Check("tap devices", False, f"no {device}", "Run `modprobe tun`; in a container, pass the device in.")


def fuse(device: Path = Path("/dev/fuse")) -> Check:
    if device.is_char_device():
        return Check("FUSE", True, str(device))
    advice = "Run `modprobe fuse`; in a container, pass the device in. Without it no workspace can be synced."
    return Check("FUSE", None, f"no {device}", advice)


def cgroups(found: Cgroups | None = None) -> Check:
    groups = Cgroups.detect("000000") if found is None else found
    advice = "A VM's memory and processor time are bounded by its size only. Enable cgroup v2 (Linux 4.15, systemd)."
    if not groups.version:
        return Check("control groups", None, "none", advice)
    missing = WANTED_CONTROLLERS - set(groups.roots)
    detail = f"version {groups.version}: {', '.join(sorted(groups.roots))}"
    if missing:
        return Check("control groups", None, f"{detail}; without {', '.join(sorted(missing))}", advice)
    return Check("control groups", True, detail)


def users(uid_map: Path = Path("/proc/self/uid_map")) -> Check:
    first = UidPool.of_installation("0").first
    if unmapped(first, BLOCK << 12, uid_map):
        advice = f"Give this container the user ids {first} and up ({BLOCK << 12} of them): each VM runs as its own."
        return Check("users", False, "the user ids of VMs are not mapped here", advice)
    return Check("users", True, f"{first} and up")
