"""The ladder of real VMs: `images` -> `vmm` -> `template` -> `vm` (a clone) -> `running` (configured). See kit/vms."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mags.host.images import ImageStore
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.qemu.vm import QemuVm
from mags.host.vmm.spec import VmSpec
from tests.kit import vms


@pytest.fixture
async def images() -> ImageStore:
    """The shared images, Alpine among them."""
    return await vms.open_images()


@pytest.fixture
async def vmm(images: ImageStore) -> QemuVmm:
    """A driver with the shared templates."""
    return await vms.open_vmm(images)


@pytest.fixture
async def template(vmm: QemuVmm) -> VmSpec:
    """The spec of the small VM, its template made."""
    await vmm.warm(vms.SPEC)
    return vms.SPEC


@pytest.fixture
async def vm(vmm: QemuVmm, template: VmSpec, tmp_path: Path) -> AsyncIterator[QemuVm]:
    """A clone that runs, not yet configured."""
    async with vms.cloned(vmm, tmp_path, spec=template) as clone:
        yield clone


@pytest.fixture
async def running(vm: QemuVm) -> AsyncIterator[vms.Running]:
    """A VM that can run scripts."""
    async with vms.running(vm) as world:
        yield world
