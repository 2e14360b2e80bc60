"""The store of templates, with files that no VM has made."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from mags.host.vmm.qemu.machine import KVM, TCG, Hypervisor
from mags.host.vmm.qemu.template import TemplateStore, template_key
from mags.host.vmm.spec import VmSpec

SPEC = VmSpec("alpine", vcpus=1, memory_mb=256, disk_gb=4)
QEMU = Hypervisor(Path("/usr/bin/qemu"), "10.0.2", (10, 0, 2))
KEY = template_key(SPEC, QEMU, TCG, "boot")


@pytest.fixture
def store(tmp_path: Path) -> TemplateStore:
    return TemplateStore(tmp_path / "templates")


async def publish(store: TemplateStore, key: str = KEY, spec: VmSpec = SPEC) -> Path:
    scratch = store.scratch(key)
    (scratch / "ram").write_bytes(b"memory")
    (scratch / "state").write_bytes(b"registers")
    return (await store.publish(scratch, key, spec, 4 << 30)).directory


async def test_a_published_template_is_found(store: TemplateStore) -> None:
    assert store.find(KEY) is None
    directory = await publish(store)
    template = store.find(KEY)
    assert template is not None
    assert (template.directory, template.key, template.disk_bytes) == (directory, KEY, 4 << 30)
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


async def test_only_the_newest_of_a_shape_is_kept(store: TemplateStore) -> None:
    older = await publish(store, "a" * 24)
    larger = await publish(store, "b" * 24, dataclasses.replace(SPEC, memory_mb=512))
    newer = await publish(store)
    assert not older.exists() and larger.exists() and newer.exists()


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
    assert template_key(dataclasses.replace(SPEC, disk_gb=9), QEMU, TCG, "boot") == KEY
