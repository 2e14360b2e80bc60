"""Templates: built once, by one builder, verified when used, anew when stale."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path

import pytest

from mags.host.app import rehearse, settle
from mags.host.images import ImageMissing, ImageStore
from mags.host.vmm.driver import VmmError
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.qemu.machine import TCG
from mags.host.vmm.qemu.process import find_by_name
from mags.host.vmm.spec import VmSpec
from tests.kit import vms

pytestmark = pytest.mark.vm


class Counted:
    """A rehearsal that counts how many templates were built."""

    def __init__(self) -> None:
        self.builds = 0

    async def __call__(self, socket: Path) -> None:
        self.builds += 1
        await rehearse(socket)


async def opened(images: ImageStore, state: Path, rehearsal: Counted) -> QemuVmm:
    return await QemuVmm.open(images, state, rehearsal, settle, accelerator=TCG)


async def test_a_template_is_built_once_and_again_when_its_files_are_damaged(
    images: ImageStore, tmp_path: Path
) -> None:
    counted = Counted()
    first, second = [await opened(images, tmp_path, counted) for _ in range(2)]
    assert not first.ready(vms.SPEC)
    assert not first.ready(VmSpec("nosuch"))
    # Two programs would meet in the same lock as these two drivers do.
    await asyncio.gather(first.warm(vms.SPEC), second.warm(vms.SPEC))
    assert (counted.builds, first.ready(vms.SPEC), second.ready(vms.SPEC)) == (1, True, True)
    assert first.ready(dataclasses.replace(vms.SPEC, disk_gb=5))
    bare, rooted = sorted((tmp_path / "templates").glob("*/meta.json"), key=lambda meta: meta.read_text().count("root"))
    directory = rooted.parent
    assert (directory / "disk").exists() and not (bare.parent / "disk").exists()
    assert (directory / "ram").stat().st_mode & 0o777 == 0o444

    for template in (bare.parent, rooted.parent):
        state = template / "state"
        state.chmod(0o644)
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    assert not first.ready(vms.SPEC)
    async with vms.cloned(first, tmp_path) as vm, vms.running(vm) as world:
        ended, _ = await world.run("true")
    assert (ended.code, counted.builds) == (0, 2)
    assert len(list((tmp_path / "templates").glob("*/meta.json"))) == 2
    assert list((tmp_path / "templates").glob(".[0-9a-f]*")) == []


async def test_a_guest_that_does_not_come_up_is_an_error_and_leaves_nothing(images: ImageStore, tmp_path: Path) -> None:
    async def never(_: Path) -> None:
        raise VmmError("The agent says nothing.")

    vmm = await QemuVmm.open(images, tmp_path, never, settle, accelerator=TCG)
    with pytest.raises(VmmError, match="says nothing"):
        await vmm.warm(vms.SPEC)
    assert [path for path in (tmp_path / "templates").iterdir() if path.name != ".locks"] == []


BUILDER = """
import asyncio, sys
from pathlib import Path
from mags.host.images import ImageStore, agent_path
from mags.host.vmm.qemu import QemuVmm
from tests.kit import vms

async def never_ready(_):
    print("booting", flush=True)
    await asyncio.sleep(600)

async def main():
    images = ImageStore(vms.CACHE, agent_path())
    await (await QemuVmm.open(images, Path(sys.argv[1]), never_ready, never_ready, accelerator="tcg")).warm(vms.SPEC)

asyncio.run(main())
"""


async def test_what_a_killed_builder_left_is_swept_by_the_next_program(images: ImageStore, tmp_path: Path) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BUILDER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    async with asyncio.timeout(vms.TIMEOUT):
        assert await program.stdout.readline() == b"booting\n"
        (scratch,) = (tmp_path / "templates").glob(".[0-9a-f]*")
        still_at_work = await opened(images, tmp_path, Counted())
        assert find_by_name(still_at_work.hypervisor.program, str(scratch)) is not None
        program.kill()
        await program.wait()
        vmm = await opened(images, tmp_path, Counted())
        while find_by_name(vmm.hypervisor.program, str(scratch)) is not None:
            await asyncio.sleep(0.01)
    assert not scratch.exists()


async def test_what_qemu_refuses_is_told_in_its_words(images: ImageStore, tmp_path: Path) -> None:
    vmm = await opened(images, tmp_path, Counted())
    with pytest.raises(VmmError, match=r"QEMU ended with status 1: .*Invalid SMP CPUs 4096"):
        await vmm.warm(VmSpec("alpine", vcpus=4096, memory_mb=256))


async def test_an_image_that_is_not_there_is_named(vmm: QemuVmm) -> None:
    with pytest.raises(ImageMissing, match="mags image build nosuch"):
        await vmm.warm(VmSpec("nosuch"))


@pytest.mark.parametrize("vcpus", [2])
async def test_a_vm_may_have_several_processors(images: ImageStore, tmp_path: Path, vcpus: int) -> None:
    vmm = await opened(images, tmp_path, Counted())
    spec = dataclasses.replace(vms.SPEC, vcpus=vcpus)
    async with vms.cloned(vmm, tmp_path, spec=spec) as vm, vms.running(vm) as world:
        _, output = await world.run("nproc")
    assert output == f"{vcpus}\n"
