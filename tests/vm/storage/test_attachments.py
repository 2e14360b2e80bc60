"""Workspaces as machines use them: attached, synced, asleep and awake, over a restart of the program, salvaged."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mags.host.attachments import Attachments, Workspace
from mags.host.guest import Channel
from mags.host.isolation import UidPool
from mags.host.machines import welcome
from mags.host.network import Namespace, NamespacePool
from mags.host.storage.config import StorageSettings
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.qemu.vm import QemuVm
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment, WorkspaceSynced
from tests.kit import vms

pytestmark = pytest.mark.vm


class Program:
    """A host program in small."""

    def __init__(self, attachments: Attachments, namespaces: NamespacePool, vmm: QemuVmm, place: Path) -> None:
        self.attachments, self.namespaces, self.vmm, self.place = attachments, namespaces, vmm, place
        self.told: list[WorkspaceSynced] = []

    def uid(self) -> int:
        return UidPool.of_installation(self.namespaces.installation).take()

    async def publish(self, event: WorkspaceSynced) -> None:
        self.told.append(event)

    async def attach(self, attachment: Attachment, vm_id: str) -> Workspace:
        return await self.attachments.attach(
            attachment, vm_id=vm_id, owner="o", name="w", image="alpine", publish=self.publish
        )

    async def up(self, workspace: Workspace, namespace: Namespace) -> tuple[QemuVm, Channel]:
        await workspace.serve(namespace.host_address)
        directory = self.place / f"vm-{secrets.token_hex(3)}"
        vm = await self.vmm.clone(
            vms.SPEC, directory, namespace=namespace, uid=self.uid(), work_disk=workspace.work_disk
        )
        channel = await Channel.connect(vm.channel_path, timeout=vms.TIMEOUT)
        await workspace.begin(vm, lambda: channel)
        await channel.configure(welcome.first(jfs=workspace.jfs, disk_bytes=vm.disk_bytes), timeout=vms.TIMEOUT)
        return vm, channel


@asynccontextmanager
async def program(place: Path, vmm: QemuVmm, subnet: str) -> AsyncIterator[Program]:
    """The volume stays mounted behind it."""
    async with Attachments.open(StorageSettings(kind="local"), place / "storage", host_id="h1") as attachments:
        namespaces = await NamespacePool.open(
            place / "network", subnet=subnet, target=0, host_services=attachments.services, runtime=place / "run"
        )
        try:
            yield Program(attachments, namespaces, vmm, place)
        finally:
            await namespaces.aclose()


async def test_sleep_restart_growth_death_and_fork(place: Path, vmm: QemuVmm) -> None:
    await vmm.warm(vms.SPEC)
    subnet = f"10.{16 + secrets.randbelow(200)}.16.0/20"
    base, vm_id = new_id(), new_id()
    async with program(place, vmm, subnet) as first:
        namespace = await first.namespaces.take()
        workspace = await first.attach(Attachment(workspace_id=base, epoch=1, disk_gb=1), vm_id)
        with pytest.raises(Problem, match="not up"):
            await workspace.sync()
        vm, channel = await first.up(workspace, namespace)
        await vms.run(channel, "echo disk > /root/f; echo jfs > /jfs/f")
        synced = await workspace.sync()
        assert first.told[-1].generation == synced.generation == 1 and first.told[-1].size_bytes > 0

        # It sleeps with a writer on /jfs and on its disk, and wakes.
        await vms.run(
            channel,
            "(exec 3>/jfs/log; i=0; while [ ! -e /root/enough ]; do i=$((i+1)); echo $i >&3; echo $i >> /root/log;"
            " sleep 0.05; done; echo done > /jfs/done) >/dev/null 2>&1 &",
        )
        await vms.run(channel, "sleep 0.3")
        await workspace.settle()
        await channel.aclose()
        await vm.save()
        await workspace.serve(namespace.host_address)
        vm = await vmm.wake(vms.SPEC, vm.directory, namespace=namespace, uid=first.uid(), work_disk=workspace.work_disk)
        await workspace.begin(vm, lambda: channel)
        await vm.resume()
        channel = await Channel.connect(vm.channel_path, timeout=vms.TIMEOUT)
        await workspace.resume()
        await channel.configure(welcome.again(), timeout=vms.TIMEOUT)
        script = "touch /root/enough; while [ ! -e /jfs/done ]; do sleep 0.1; done; cat /jfs/f"
        ended, output = await vms.run(channel, script)
        assert (ended.code, output) == (0, "jfs\n")
        await channel.aclose()
        await vm.release()

    # The next program goes on with the VM, and grows its disk.
    async with program(place, vmm, subnet) as second, AsyncExitStack() as stack:
        namespace = await second.namespaces.adopt(namespace.index)
        stack.push_async_callback(second.namespaces.release, namespace)
        found = await vmm.adopt(vm.directory)
        assert found is not None
        stack.push_async_callback(found.destroy)
        workspace = await second.attach(Attachment(workspace_id=base, epoch=1, disk_gb=1), vm_id)
        await workspace.serve(namespace.host_address)
        channel = await Channel.connect(found.channel_path, timeout=vms.TIMEOUT)
        stack.push_async_callback(channel.aclose)
        await workspace.begin(found, lambda: channel)
        await workspace.grow(2)
        await channel.configure(replace(welcome.again(), grow=True, disk_bytes=found.disk_bytes), timeout=vms.TIMEOUT)
        ended, output = await vms.run(channel, "cat /jfs/f /root/f; echo unsynced > /root/u; sync")
        assert (ended.code, output) == (0, "jfs\ndisk\n")

        # QEMU dies: what was not synced is saved all the same. A fork of that has it too.
        await found.process.kill()
        await workspace.salvage(vmm, vm.directory)
        last = second.told[-1].generation
        await workspace.release()
        fork = await second.attach(
            Attachment(workspace_id=new_id(), epoch=1, disk_gb=2, base=base, base_generation=last), new_id()
        )
        await second.attachments.drop(base)
        other = await second.namespaces.take()
        stack.push_async_callback(second.namespaces.release, other)
        copy, copy_channel = await second.up(fork, other)
        assert second.told[-1].generation == 1 and second.told[-1].workspace_id != base
        stack.push_async_callback(copy.destroy)
        stack.push_async_callback(copy_channel.aclose)
        _, output = await vms.run(copy_channel, "cat /root/f /root/u /jfs/f; df -k / | tail -1 | awk '{print $2}'")
        assert output.split()[:3] == ["disk", "unsynced", "jfs"] and int(output.split()[3]) > 1_500_000
        await fork.release()


async def test_host_without_storage_says_so(tmp_path: Path) -> None:
    async with Attachments.open(StorageSettings(kind="off"), tmp_path, host_id="h1") as attachments:
        assert attachments.status == ""
        with pytest.raises(Problem, match="no_sync"):
            await attachments.drop(new_id())


async def test_wrong_settings_are_said_in_the_presence(tmp_path: Path) -> None:
    settings = StorageSettings(kind="s3", endpoint="nowhere")
    async with Attachments.open(settings, tmp_path, host_id="h1") as attachments:
        async with asyncio.timeout(60):
            while "not an http" not in attachments.status:
                await asyncio.sleep(0.01)
