"""Real VMs for tests. Image, template and the accelerator's verdict are kept from session to session.

    images -> template -> clone -> running (configured, with its root mounted)

They are in the cache that all tests share (kit/cache).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mags.host.app import rehearse, settle
from mags.host.guest import Channel, Configure, Exec, Exit
from mags.host.images import ImageMissing, ImageStore, agent_path
from mags.host.images.build import build_alpine
from mags.host.vmm.driver import TapSource
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.qemu.vm import QemuVm
from mags.host.vmm.spec import VmSpec
from tests.kit.cache import CACHE

SPEC = VmSpec("alpine", vcpus=1, memory_mb=256, disk_gb=1)
"""Small, and the same in all tests, so that they share one template."""
UID = 231_000
TIMEOUT = 120.0
"""Seconds for one thing in a VM, on a machine that does ten others."""


async def open_images(cache: Path = CACHE) -> ImageStore:
    """The shared store, with the Alpine image in it."""
    store = ImageStore(cache, agent_path())
    try:
        store.find("alpine")
    except ImageMissing:
        await build_alpine(store)
    return store


async def open_vmm(images: ImageStore, state: Path | None = None) -> QemuVmm:
    """A driver on the shared templates, or on those in `state`. MAGS_ACCEL chooses the accelerator."""
    accelerator = os.environ.get("MAGS_ACCEL", "auto")
    return await QemuVmm.open(images, state or images.cache / "vmm", rehearse, settle, accelerator=accelerator)


@dataclass(frozen=True, slots=True)
class Running:
    """A VM that has been configured, and its channel."""

    vm: QemuVm
    channel: Channel

    async def run(self, script: str) -> tuple[Exit, str]:
        """How a script ended and all that it wrote."""
        return await run(self.channel, script)


async def run(channel: Channel, script: str) -> tuple[Exit, str]:
    async with asyncio.timeout(TIMEOUT):
        process = await channel.exec(Exec(script=script.encode()))
        output = bytearray()
        while (piece := await process.next_output()) is not None:
            output += piece.data
            process.acknowledge(piece.stream, piece.offset + len(piece.data))
        ended = await process.wait()
        await process.release()
    return ended, output.decode(errors="replace")


@asynccontextmanager
async def cloned(
    vmm: QemuVmm, directory: Path, *, spec: VmSpec = SPEC, namespace: TapSource | None = None, uid: int = UID
) -> AsyncIterator[QemuVm]:
    """A clone that runs, and does not outlive the block."""
    vm = await vmm.clone(spec, directory / f"vm-{secrets.token_hex(3)}", namespace=namespace, uid=uid)
    try:
        yield vm
    finally:
        await vm.destroy()


@asynccontextmanager
async def running(vm: QemuVm) -> AsyncIterator[Running]:
    """The VM with its clock, entropy and root in place."""
    channel = await Channel.connect(vm.channel_path, timeout=TIMEOUT)
    try:
        wish = Configure(
            clock_ns=time.time_ns(), entropy=os.urandom(64), hostname="test", root=True, disk_bytes=vm.disk_bytes
        )
        await channel.configure(wish, timeout=TIMEOUT)
        yield Running(vm, channel)
    finally:
        await channel.aclose()
