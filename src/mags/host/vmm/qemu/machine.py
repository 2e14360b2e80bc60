"""The machine that QEMU emulates: its command line, and everything in it that depends on the host or QEMU's version.

A template and its clones must have the same devices in the same order; `DEVICES` names that order and is part of a
template's key. What may differ between them is where a disk's content comes from, and what the network ends in.
"""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mags.host.vmm.driver import VmmError
from mags.host.vmm.spec import VmSpec

DEVICES = "2 microvm rtc serial blk:image blk:work net serialport:mags.agent"
"""Raise the number when a change of the command line makes older templates unusable."""

MACHINE = "microvm,rtc=on,pic=off,pit=off,auto-kernel-cmdline=on"
"""Neither PIC nor PIT: this machine's ACPI tells the kernel that there is no PIC, so nobody sets it up, and the first
tick of the PIT arrives as a division by zero (a panic before the first line of output, in half of all boots)."""

KVM, TCG = "kvm", "tcg"
CPU = "max"
GUEST_MAC = "52:54:00:6d:61:67"
LOOSE_TAP = "ifname=tap0,script=no,downscript=no"
"""A tap made in QEMU's own empty network namespace, leading nowhere. It offers the guest the same features as one
that leads somewhere, so a template negotiates what its clones can use."""
CHANNEL = "agent"
"""QEMU's name for the socket of the guest agent's channel."""
CONSOLE_BYTES = 1 << 16
"""QEMU keeps the last bytes of the guest's console in memory, in a ring: whatever the guest writes, no more."""
TRANSLATION_MB = 64
"""Size of the translation cache of TCG, MiB. It is filled on use (22 after a first `echo`), and emptied when full:
below 64, a Python that imports a few modules runs 2 to 9 times slower."""
MINIMUM = (8, 2)
"""Oldest version of QEMU that can map a template read-only and migrate to a file."""
SANDBOX = "on,obsolete=deny,elevateprivileges=allow,spawn=deny,resourcecontrol=deny"
"""Changing users is allowed since QEMU itself has to step down; after that it has no privilege, nor (by
no_new_privs) a way to gain one."""
ON_ERROR = "rerror=stop,werror=stop"
"""Of the work disk: the guest must not see what passes (see recovery)."""
STATE_SET = 1
"""The number under which QEMU finds the saved state that it inherited: `/dev/fdset/1`."""
WORK_NODE, WORK_FILE_NODE, WORK_BASE_NODE = "work", "workfile", "workbase"


class RamUse(StrEnum):
    """How a file becomes the guest's memory."""

    WRITE = "share=on"
    """The guest writes to the file: a template being made, or a VM with a file of its own."""
    COPY = "share=off"
    """The guest sees the file and writes to private copies of its pages; the file may be read-only."""


@dataclass(frozen=True, slots=True)
class Ram:
    path: Path
    use: RamUse


@dataclass(frozen=True, slots=True)
class Disk:
    """The work disk: a qcow2 overlay over a raw base that is only read."""

    base: Path
    overlay: Path
    durable: bool = True
    """Whether the guest's flushes reach the host's disk; they need not where the disk ends with the VM."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Numbers of inherited descriptors: listening sockets for the monitor and the agent; the tap and the saved state
    where there are any."""

    monitor: int
    agent: int
    tap: int | None = None
    state: int | None = None


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """QEMU on this host. `version` as it prints it, `number` to compare."""

    program: Path
    version: str
    number: tuple[int, ...]

    @classmethod
    def parse(cls, program: Path, banner: str) -> Hypervisor:
        """From the output of `--version`; VmmError when it is too old."""
        found = re.search(r"version (\d+(?:\.\d+)+)(.*)", banner)
        if found is None:
            raise VmmError(f"{program} does not say which version it is.")
        number = tuple(int(part) for part in found[1].split("."))
        if number < MINIMUM:
            wanted = ".".join(map(str, MINIMUM))
            raise VmmError(f"QEMU {found[1]} is too old: Mags needs {wanted} or newer (Debian 12: backports).")
        return cls(program, f"{found[1]}{found[2]}".strip(), number)


@dataclass(frozen=True, slots=True)
class Boot:
    """What the machine starts from: a kernel, or the memory of a template (whose kernel already runs)."""

    kernel: Path
    initramfs: Path


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine to start."""

    hypervisor: Hypervisor
    accelerator: str
    spec: VmSpec
    name: str
    image: Path
    ram: Ram
    disk: Disk
    boot: Boot | None
    """None: wait for an incoming state."""
    stopped: bool = False
    """Whether it stands still when it is complete, until it is told to run."""

    def command(self, descriptors: Descriptors, *, user: int, root: Path) -> list[str]:
        """The command line; QEMU steps down to `user` and into the directory `root` before a guest runs."""
        spec = self.spec
        words = [str(self.hypervisor.program), "-name", self.name.replace(",", ",,")]
        words += ["-M", f"{MACHINE},memory-backend=ram"]
        words += ["-accel", f"tcg,tb-size={TRANSLATION_MB}" if self.accelerator == TCG else "kvm"]
        words += ["-cpu", CPU, "-smp", str(spec.vcpus), "-m", str(spec.memory_mb)]
        words += ["-nodefaults", "-no-user-config", "-display", "none", "-sandbox", SANDBOX]
        # A guest that ends leaves a stopped QEMU, so that its last words can still be read.
        words += ["-action", "reboot=shutdown,shutdown=pause"]
        words += self._step_down(user, root)
        words += ["-object", json.dumps(self._memory())]
        if self.stopped:
            words.append("-S")
        if self.boot is None:
            words += ["-add-fd", f"fd={descriptors.state},set={STATE_SET}", "-incoming", "defer"]
        else:
            words += ["-kernel", str(self.boot.kernel), "-initrd", str(self.boot.initramfs)]
            words += ["-append", kernel_arguments(self.accelerator)]
        words += ["-chardev", f"ringbuf,id=console,size={CONSOLE_BYTES}", "-serial", "chardev:console"]
        words += ["-chardev", f"socket,id=monitor,fd={descriptors.monitor},server=on,wait=off"]
        words += ["-mon", "chardev=monitor,mode=control"]
        for node in [_raw_file("image", self.image), *self._work_nodes()]:
            words += ["-blockdev", json.dumps(node)]
        words += ["-device", "virtio-blk-device,drive=image,serial=image"]
        words += ["-device", f"virtio-blk-device,drive={WORK_NODE},serial=work,{ON_ERROR}"]
        network = LOOSE_TAP if descriptors.tap is None else f"fd={descriptors.tap}"
        # Nobody needs to hear that a clone has come: the other end of its link is made for it.
        card = f"virtio-net-device,netdev=net,mac={GUEST_MAC},guest_announce=off"
        words += ["-netdev", f"tap,id=net,{network}", "-device", card]
        words += ["-chardev", f"socket,id={CHANNEL},fd={descriptors.agent},server=on,wait=off"]
        words += ["-device", "virtio-serial-device,max_ports=2"]
        words += ["-device", f"virtserialport,chardev={CHANNEL},name=mags.agent"]
        return words

    def _step_down(self, user: int, root: Path) -> list[str]:
        where = f"chroot={str(root).replace(',', ',,')}"
        if self.hypervisor.number >= (9, 1):
            return ["-run-with", f"{where},user={user}:{user}"]
        return ["-run-with", where, "-runas", f"{user}:{user}"]

    def _memory(self) -> dict[str, object]:
        size = self.spec.memory_mb << 20
        memory = {"qom-type": "memory-backend-file", "id": "ram", "size": size, "mem-path": str(self.ram.path)}
        if self.ram.use is RamUse.COPY:
            return memory | {"share": False, "readonly": True, "rom": "off"}
        return memory | {"share": True}

    def _work_nodes(self) -> list[dict[str, object]]:
        disk = self.disk
        file: dict[str, object] = {"driver": "file", "node-name": WORK_FILE_NODE, "filename": str(disk.overlay)}
        file |= {"locking": "off", "discard": "unmap"}
        node: dict[str, object] = {"driver": "qcow2", "node-name": WORK_NODE, "file": WORK_FILE_NODE}
        node |= {"backing": WORK_BASE_NODE, "discard": "unmap", "detect-zeroes": "unmap"}
        node |= {"cache": {"no-flush": not disk.durable}}
        return [_raw_file(WORK_BASE_NODE, disk.base), file, node]


def _raw_file(name: str, path: Path) -> dict[str, object]:
    file = {"driver": "file", "filename": str(path), "locking": "off", "read-only": True}
    return {"driver": "raw", "node-name": name, "read-only": True, "file": file}


def kernel_arguments(accelerator: str) -> str:
    """The guest kernel's command line."""
    words = ["console=ttyS0", "quiet", "reboot=t", "panic=-1", "random.trust_cpu=on"]
    # A debugging aid of the kernel's that samples allocations, and changes its code for each sample; a scheduling group
    # for each session, that is for each command.
    words += ["kfence.sample_interval=0", "noautogroup"]
    if accelerator == TCG:
        # Protections against speculation only cost time where nothing speculates. Told the clock rate, the kernel
        # does not measure it, which fails on a busy host and then hangs the boot.
        # Nor does it watch the clock, which a busy host makes look wrong, and then fall back to counting ticks.
        rate = tsc_khz(Path("/proc/cpuinfo").read_text())
        # A guest that waits for a busy host is not locked up.
        words += ["nokaslr", "mitigations=off", "nowatchdog", "tsc=reliable", f"tsc_early_khz={rate}"]
    return " ".join(words)


def tsc_khz(cpuinfo: str) -> int:
    """The rate of the time stamp counter that the guest sees under TCG, kHz: bogomips are two ticks of it."""
    found = re.search(r"bogomips\s*:\s*([\d.]+)", cpuinfo)
    if found is None:
        raise VmmError("/proc/cpuinfo does not tell the processor's bogomips.")
    return int(float(found[1]) * 500)


def supported() -> bool:
    """Whether this host's architecture is one that we have a machine for."""
    return platform.machine() == "x86_64"
