"""Which control groups a machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from mags.host.isolation import Cgroups


def detect(tmp_path: Path, mounts: str) -> Cgroups:
    file = tmp_path / "mounts"
    file.write_text(mounts)
    return Cgroups.detect("abcdef", file)


def test_v2_is_used_where_it_has_memory(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    found = detect(tmp_path, f"cgroup2 {tmp_path} cgroup2 rw,nsdelegate 0 0\n")
    assert (found.version, set(found.roots)) == (2, {"cpu", "memory", "pids"})


def test_v1_is_used_on_a_hybrid_machine(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    found = detect(
        tmp_path,
        f"cgroup2 {tmp_path} cgroup2 rw 0 0\ncgroup /c/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
        "cgroup /c/memory cgroup rw,memory 0 0\ncgroup /c/systemd cgroup rw,name=systemd 0 0\n",
    )
    assert found.version == 1
    assert found.roots == {"cpu": Path("/c/cpu,cpuacct"), "memory": Path("/c/memory")}


def test_a_machine_without_control_groups_gets_none(tmp_path: Path) -> None:
    found = detect(tmp_path, "proc /proc proc rw 0 0\n")
    assert found.version == 0
    assert found.create("vm", memory_mb=1, vcpus=1) is None
    assert found.adopt("vm") is None


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden"])
def test_a_name_cannot_lead_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        detect(tmp_path, "cgroup /c/memory cgroup rw,memory 0 0\n").adopt(name)


def test_limits_are_written_to_the_group(tmp_path: Path) -> None:
    """On a directory that only looks like a hierarchy: the numbers, not their effect."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    for directory in (tmp_path, tmp_path / "mags-abcdef"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.subtree_control").write_text("cpu")
    group = detect(tmp_path, f"cgroup2 {tmp_path} cgroup2 rw 0 0\n").create("vm", memory_mb=512, vcpus=2)
    assert group is not None
    (directory,) = group.directories
    assert (directory / "memory.max").read_text() == str((512 + 256) << 20)
    assert (directory / "cpu.max").read_text() == "300000 100000"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"
