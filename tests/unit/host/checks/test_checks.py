"""What the doctor says of machines that lack something."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mags.host.checks import devices, machine, modules, networks, programs
from mags.host.isolation import Cgroups

GIB = 1 << 30


def meminfo(tmp_path: Path, available_mb: int) -> Path:
    file = tmp_path / "meminfo"
    file.write_text(f"MemTotal:       24000000 kB\nMemAvailable:   {available_mb * 1024} kB\nHugePages_Total:  0\n")
    return file


@pytest.mark.parametrize(
    ("available", "running", "ok"),
    [(1500, False, False), (1600, False, None), (2048, False, True), (1000, True, False), (1536, True, True)],
)
def test_memory(tmp_path: Path, available: int, running: bool, ok: bool | None) -> None:
    found = machine.memory(512, 1024, running, meminfo(tmp_path, available))
    assert found.ok is ok and str(available) in found.detail
    assert bool(found.advice) == (ok is not True)


@pytest.mark.parametrize(("free", "ok"), [(3 * GIB, False), (4 * GIB, None), (10 * GIB, True)])
def test_disk_of_a_directory_that_is_not_there_yet(tmp_path: Path, free: int, ok: bool | None) -> None:
    assert machine.disk(tmp_path / "not" / "yet", 2.0, free).ok is ok


def test_rights_and_python() -> None:
    assert machine.root(0).ok and not machine.root(1000).ok
    assert machine.python((3, 11), "x86_64").ok
    assert machine.python((3, 10), "x86_64").ok is False
    assert machine.python((3, 12), "aarch64").ok is False, "images/wheel.py has no kernel for it"
    assert machine.python((3, 14), "x86_64").ok is None


def test_the_range_of_pythons_is_the_same_everywhere() -> None:
    oldest, newest = (".".join(map(str, version)) for version in (machine.OLDEST_PYTHON, machine.NEWEST_PYTHON))
    root = Path(__file__).parents[4]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={oldest}"
    versions = [word.rpartition(" ")[2] for word in project["classifiers"] if "Python :: 3." in word]
    assert (versions[0], versions[-1]) == (oldest, newest)
    assert f"Python {oldest} to {newest}" in (root / "README.md").read_text()
    tried = " ".join(f"python{version}" for version in reversed(versions))
    assert f'"${{PYTHON:-}}" {tried} python3;' in (root / "dev").read_text()


def test_modules_of_the_kernel(tmp_path: Path) -> None:
    tree, loaded = tmp_path / "lib", tmp_path / "sys"
    assert modules.modules("6.1", tree, loaded).ok, "in a container without them, what they do is tried"
    (tree / "6.1").mkdir(parents=True)
    for name in modules.WANTED[:3]:
        (loaded / name).mkdir(parents=True)
    index = tree / "6.1" / "modules.dep"
    index.write_text("".join(f"kernel/net/{name.replace('_', '-')}.ko.xz: a/b.ko.xz\n" for name in modules.WANTED[4:]))
    (tree / "6.1" / "modules.builtin").write_text(f"kernel/net/{modules.WANTED[3]}.ko\n")
    found = modules.modules("6.1", tree, loaded)
    assert found.ok and f"`modprobe -a {' '.join(modules.WANTED[4:])}`" in found.advice
    for name in modules.WANTED[4:-1]:
        (loaded / name).mkdir()
    index.write_text("kernel/net/other.ko:\n")
    found = modules.modules("6.1", tree, loaded)
    assert found.ok is None and found.detail.endswith("lacks fuse") and "linux-modules-extra-6.1" in found.advice
    (loaded / "fuse").mkdir()
    found = modules.modules("6.1", tree, loaded)
    assert found.ok and not found.advice


def test_kvm_is_named_by_its_verdict(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    assert devices.kvm(tmp_path, device).ok is None
    device.touch()
    assert devices.kvm(tmp_path, device).ok
    (tmp_path / "accelerator.json").write_text('{"accelerator":"tcg","reason":"It hung.","kernel":"6","qemu":"10"}')
    found = devices.kvm(tmp_path, device)
    assert found.ok is None and found.detail == "It hung." and "accelerator.json" in found.advice


def test_missing_devices(tmp_path: Path) -> None:
    assert devices.tun(tmp_path / "tun").ok is False
    assert devices.fuse(tmp_path / "fuse").ok is None
    assert devices.tun(Path("/dev/null")).ok


def test_control_groups_that_lack_something() -> None:
    assert devices.cgroups(Cgroups("a", 0, {})).ok is None
    half = devices.cgroups(Cgroups("a", 1, {"memory": Path("/x")}))
    assert half.ok is None and "without cpu, pids" in half.detail
    assert devices.cgroups(Cgroups("a", 2, {word: Path("/x") for word in ("cpu", "memory", "pids")})).ok


def test_a_container_without_the_users_of_vms(tmp_path: Path) -> None:
    uid_map = tmp_path / "uid_map"
    uid_map.write_text("0 100000 65536\n")
    assert devices.users(uid_map).ok is False
    uid_map.write_text("0 0 4294967295\n")
    assert devices.users(uid_map).ok


def test_firewalls_of_others_are_found() -> None:
    def chain(table: str, hook: str, policy: str, name: str = "C") -> dict[str, dict[str, str]]:
        body = {"family": "ip", "table": table, "name": name, "hook": hook, "policy": policy, "type": "filter"}
        return {"chain": body}

    listed = [
        {"metainfo": {"version": "1"}},
        {"chain": {"family": "ip", "table": "filter", "name": "DOCKER"}},
        chain("filter", "forward", "drop", "FORWARD"),
        chain("filter", "output", "drop"),
        chain("filter", "input", "accept"),
        chain("mags_abcdef", "forward", "drop"),
        chain("firewalld", "input", "accept", "filter_INPUT"),
    ]
    assert [found["name"] for found in networks.dropping(listed)] == ["FORWARD", "filter_INPUT"]


def test_forwarding_and_resolvers(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("0\n")
    assert "turns it on" in networks.forwarding(file).detail
    assert networks.resolvers(file).ok is None
    file.write_text("nameserver 127.0.0.53\n")
    assert networks.resolvers(file).ok


def test_every_tool_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = {check.name: check for check in programs.tools()}
    assert found["nft"].ok is False and "apt-get install nftables" in found["nft"].advice
    assert found["mmdebstrap"].ok is None
