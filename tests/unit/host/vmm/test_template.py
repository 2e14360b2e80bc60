"""The store of templates, with files that no VM has made."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from mags.host.vmm.qemu.machine import KVM, TCG, Hypervisor
from mags.host.vmm.qemu.template import LIMIT, TemplateStore, kind, template_key
from mags.host.vmm.spec import VmSpec

SPEC = VmSpec("alpine", vcpus=1, memory_mb=256, disk_gb=4)
QEMU = Hypervisor(Path("/usr/bin/qemu"), "10.0.2", (10, 0, 2))
KEY = template_key(SPEC, QEMU, TCG, "boot")


@pytest.fixture
def store(tmp_path: Path) -> TemplateStore:
    return TemplateStore(tmp_path / "templates")


async def publish(store: TemplateStore, key: str = KEY, name: str = kind(SPEC, rooted=False)) -> Path:
    scratch = store.scratch(key)
    (scratch / "ram").write_bytes(b"memory")
    (scratch / "state").write_bytes(b"registers")
    files = {"ram": scratch / "ram", "state": scratch / "state"}
    return (await store.publish(key, name, 4 << 30, **files)).directory


async def test_a_published_template_is_found(store: TemplateStore) -> None:
    assert store.find(KEY) is None
    directory = await publish(store)
    template = store.find(KEY)
    assert template is not None
    assert (template.directory, template.key, template.disk_bytes, template.rooted) == (directory, KEY, 4 << 30, False)
    assert (template.ram.read_bytes(), template.state.read_bytes()) == (b"memory", b"registers")
    assert template.ram.stat().st_mode & 0o777 == template.state.stat().st_mode & 0o777 == 0o444
    assert store.find("0" * 24) is None


@pytest.mark.parametrize(
    "damage", ["ram size", "ram time", "state", "no ram", "no state", "meta", "no meta", "other key"]
)
async def test_a_template_that_is_not_as_it_was_written_is_not_found(store: TemplateStore, damage: str) -> None:
    directory = await publish(store)
    ram, state, meta = (directory / name for name in ("ram", "state", "meta.json"))
    match damage:
        case "ram size":
            ram.write_bytes(b"memory and more")
        case "ram time":
            os.utime(ram, (1, 1))
        case "state":
            state.write_bytes(b"Registers")
        case "no ram" | "no state" | "no meta":
            {"no ram": ram, "no state": state, "no meta": meta}[damage].unlink()
        case "meta":
            meta.write_bytes(meta.read_bytes()[:-9])
        case "other key":
            directory.replace(directory.with_name("1" * 24))
            assert store.find("1" * 24) is None
    assert store.find(KEY) is None
    await publish(store)
    assert store.find(KEY) is not None


async def test_only_the_newest_of_a_kind_is_kept(store: TemplateStore) -> None:
    older = await publish(store, "a" * 24)
    larger = await publish(store, "b" * 24, kind(dataclasses.replace(SPEC, memory_mb=512), rooted=False))
    rooted = await publish(store, "c" * 24, kind(SPEC, rooted=True))
    foreign = await publish(store, "d" * 24, "foreign")
    (foreign / "meta.json").write_text('{"made": "by another version"}')
    newer = await publish(store)
    assert not older.exists() and not foreign.exists()
    assert larger.exists() and rooted.exists() and newer.exists()


async def test_those_not_used_for_longest_make_room(store: TemplateStore) -> None:
    made = [await publish(store, f"{number:024}", f"kind {number}") for number in range(LIMIT)]
    for age, directory in enumerate(made):
        os.utime(directory, (1000 - age, 1000 - age))
    assert store.find(made[-1].name) is not None
    await publish(store)
    assert [directory.exists() for directory in made] == [True] * (LIMIT - 2) + [False, True]


async def test_a_rooted_template_has_a_disk(store: TemplateStore) -> None:
    scratch = store.scratch(KEY)
    files = {name: scratch / name for name in ("ram", "state", "disk")}
    for name, path in files.items():
        path.write_text(name)
    await store.publish(KEY, kind(SPEC, rooted=True), 4 << 30, **files)
    template = store.find(KEY)
    assert template is not None
    assert (template.rooted, template.disk.read_text()) == (True, "disk")


async def test_what_a_crashed_build_left_is_removed_by_the_next(store: TemplateStore) -> None:
    (store.scratch(KEY) / "ram").write_bytes(b"half")
    await publish(store)
    assert (store.directory / KEY / "ram").read_bytes() == b"memory"


def test_everything_that_could_make_a_restore_differ_is_in_the_key() -> None:
    keys = {
        KEY,
        template_key(SPEC, QEMU, KVM, "boot"),
        template_key(SPEC, QEMU, TCG, "other kernel"),
        template_key(SPEC, Hypervisor(QEMU.program, "10.0.3", (10, 0, 3)), TCG, "boot"),
        template_key(dataclasses.replace(SPEC, image="debian"), QEMU, TCG, "boot"),
        template_key(dataclasses.replace(SPEC, vcpus=2), QEMU, TCG, "boot"),
        template_key(dataclasses.replace(SPEC, memory_mb=512), QEMU, TCG, "boot"),
    }
    assert len(keys) == 7
    other_disk = dataclasses.replace(SPEC, disk_gb=9)
    assert template_key(other_disk, QEMU, TCG, "boot") == KEY
    rooted = {template_key(spec, QEMU, TCG, "boot", rooted=True) for spec in (SPEC, other_disk)}
    assert len(rooted) == 2 and KEY not in rooted
