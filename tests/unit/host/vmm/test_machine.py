"""The command line, which a template and its clones must agree on."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu.machine import (
    KVM,
    TCG,
    Boot,
    Descriptors,
    Disk,
    Hypervisor,
    Machine,
    Ram,
    RamUse,
    kernel_arguments,
    tsc_khz,
)
from mags.host.vmm.spec import VmSpec

DEBIAN = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright (c) 2003-2025 Fabrice Bellard"
PROGRAM = Path("/usr/bin/qemu-system-x86_64")
COLD = Machine(
    hypervisor=Hypervisor(PROGRAM, "10.0.2", (10, 0, 2)),
    accelerator=TCG,
    spec=VmSpec("alpine", vcpus=2, memory_mb=512),
    name="/vms/a,b",
    image=Path("/images/a,b.raw"),
    ram=Ram(Path("/t/ram"), RamUse.WRITE),
    disk=Disk(Path("/blank.raw"), Path("/vms/work.qcow2"), durable=False),
    boot=Boot(Path("/vmlinux"), Path("/initramfs")),
)
CLONE = dataclasses.replace(COLD, ram=Ram(Path("/t/ram"), RamUse.COPY), boot=None)


def command(machine: Machine, descriptors: Descriptors = Descriptors(3, 4)) -> list[str]:
    return machine.command(descriptors, user=1000, root=Path("/vms/root"))


def values(words: list[str], option: str) -> list[str]:
    return [value for word, value in itertools.pairwise(words) if word == option]


def test_a_clone_has_the_devices_of_its_template_in_their_order() -> None:
    cold, clone = command(COLD), command(CLONE, Descriptors(3, 4, tap=5, state=6))
    assert values(cold, "-device") == values(clone, "-device")
    for option in ("-M", "-cpu", "-smp", "-m", "-serial", "-chardev"):
        assert values(cold, option) == values(clone, option)
    kinds = [device.partition(",")[0] for device in values(cold, "-device")]
    assert kinds == [
        "virtio-blk-device", "virtio-blk-device", "virtio-net-device", "virtio-serial-device", "virtserialport",
    ]  # fmt: skip


def test_only_a_cold_machine_has_a_kernel_and_only_a_clone_waits_for_a_state() -> None:
    cold, clone = command(COLD), command(CLONE, Descriptors(3, 4, state=6))
    assert "-kernel" in cold and "-incoming" not in cold and "-add-fd" not in cold
    assert "-kernel" not in clone and values(clone, "-incoming") == ["defer"]
    assert values(clone, "-add-fd") == ["fd=6,set=1"]


def test_a_clone_cannot_write_to_its_template() -> None:
    (cold,), (clone,) = (map(json.loads, values(command(machine), "-object")) for machine in (COLD, CLONE))
    assert (cold["share"], cold.get("readonly")) == (True, None)
    assert (clone["share"], clone["readonly"], clone["rom"]) == (False, True, "off")
    for machine in (COLD, CLONE):
        nodes = {node["node-name"]: node for node in map(json.loads, values(command(machine), "-blockdev"))}
        assert nodes["image"]["read-only"] and nodes["workbase"]["read-only"]
        assert nodes["work"]["backing"] == "workbase"


def test_flushes_reach_the_disk_where_they_must() -> None:
    for durable in (True, False):
        machine = dataclasses.replace(CLONE, disk=dataclasses.replace(CLONE.disk, durable=durable))
        nodes = {node["node-name"]: node for node in map(json.loads, values(command(machine), "-blockdev"))}
        assert nodes["work"]["cache"] == {"no-flush": not durable}


def test_the_guest_never_sees_that_its_disk_fails() -> None:
    (work,) = (device for device in values(command(CLONE), "-device") if "drive=work" in device)
    assert {"rerror=stop", "werror=stop"} <= set(work.split(","))


def test_qemu_steps_down_as_its_version_knows_how() -> None:
    assert values(command(COLD), "-run-with") == ["chroot=/vms/root,user=1000:1000"]
    older = dataclasses.replace(COLD, hypervisor=Hypervisor(PROGRAM, "8.2.2", (8, 2, 2)))
    assert values(command(older), "-run-with") == ["chroot=/vms/root"]
    assert values(command(older), "-runas") == ["1000:1000"]
    for machine in (COLD, older):
        assert values(command(machine), "-sandbox")[0].startswith("on,")


def test_commas_in_paths_stay_in_the_paths() -> None:
    words = command(dataclasses.replace(COLD, hypervisor=Hypervisor(PROGRAM, "10", (10,))))
    assert values(words, "-name") == ["/vms/a,,b"]
    chroot = COLD.command(Descriptors(3, 4), user=1, root=Path("/a,b"))
    assert values(chroot, "-run-with")[0].startswith("chroot=/a,,b,")
    assert any(json.loads(node).get("file", {}) == {
        "driver": "file", "filename": "/images/a,b.raw", "locking": "off", "read-only": True,
    } for node in values(words, "-blockdev") if "imag" in node)  # fmt: skip


def test_guests_keep_their_protections_under_kvm() -> None:
    assert "mitigations=off" in kernel_arguments(TCG)
    assert "tsc_early_khz=" in kernel_arguments(TCG)
    for word in ("mitigations", "nokaslr", "tsc"):
        assert word not in kernel_arguments(KVM)
    assert values(command(dataclasses.replace(COLD, accelerator=KVM)), "-accel") == ["kvm"]


def test_the_clock_rate_comes_from_bogomips() -> None:
    assert tsc_khz("model name\t: x\nbogomips\t: 5192.24\nflags\t: y\n") == 2_596_120
    with pytest.raises(VmmError, match="bogomips"):
        tsc_khz("Features : fp asimd")


@pytest.mark.parametrize(
    ("banner", "number"),
    [
        (DEBIAN, (10, 0, 2)),
        ("QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)", (8, 2, 2)),
        ("QEMU emulator version 9.2", (9, 2)),
    ],
)
def test_versions_are_read(banner: str, number: tuple[int, ...]) -> None:
    assert Hypervisor.parse(PROGRAM, banner).number == number


def test_the_packaging_is_part_of_the_version() -> None:
    assert Hypervisor.parse(PROGRAM, DEBIAN).version == "10.0.2 (Debian 1:10.0.2+ds-2)"


@pytest.mark.parametrize(("banner", "match"), [("QEMU emulator version 7.2.15", "too old"), ("zsh", "does not say")])
def test_unusable_versions_are_refused(banner: str, match: str) -> None:
    with pytest.raises(VmmError, match=match):
        Hypervisor.parse(PROGRAM, banner)
