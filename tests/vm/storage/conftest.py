"""Real VMs with workspaces: a volume, a network of their own, and a database that is a dictionary."""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from mags.host.guest import Channel, Configure, Exit, Jfs
from mags.host.isolation import UidPool
from mags.host.jfs import Exports
from mags.host.machines import welcome
from mags.host.network import NamespacePool
from mags.host.network.addresses import GATEWAY_ADDRESS
from mags.host.storage.attached import Attached
from mags.host.storage.config import StorageSettings
from mags.host.storage.engine import Engine
from mags.host.storage.errors import StaleEpoch
from mags.host.storage.syncer import Syncer
from mags.host.vmm.qemu import QemuVmm
from mags.host.vmm.qemu.blocksync import BlockSync
from mags.host.vmm.qemu.vm import QemuVm
from mags.host.vmm.spec import WorkDisk
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment, Synced
from tests.kit import sessions, vms
from tests.kit.host_fixtures import image_cache
from tests.kit.objectstore import new_volume

__all__ = ["image_cache"]

JFS_GUEST_PORT = 2049


@dataclass
class Rows:
    """What control keeps of a workspace."""

    generation: dict[str, int] = field(default_factory=dict)
    epoch: dict[str, int] = field(default_factory=dict)


@dataclass
class Box:
    """A VM with a workspace."""

    vm: QemuVm
    channel: Channel
    attached: Attached
    syncer: Syncer
    boot_ms: int

    async def run(self, script: str) -> str:
        """What the script wrote; it must succeed."""
        ended, output = await self.attempt(script)
        assert ended.code == 0, output
        return output

    async def attempt(self, script: str) -> tuple[Exit, str]:
        return await vms.run(self.channel, script)


class Bench:
    """Starts boxes; all that is left ends with it."""

    def __init__(self, stack: AsyncExitStack, engine: Engine, vmm: QemuVmm, place: Path) -> None:
        self.engine, self.vmm, self.place, self.rows = engine, vmm, place, Rows()
        self._stack = stack
        self.exports: Exports
        self.namespaces: NamespacePool
        self.jfs_port = 0
        self.names_root = True
        """Whether guests are told the handle of their /jfs, as hosts do when they have it."""

    async def prepare_network(self) -> None:
        """Only tests of /jfs need one."""
        self.exports = await Exports.open(self.place)
        self._stack.push_async_callback(self.exports.close)
        self.jfs_port = self.exports.port
        octet = 16 + secrets.randbelow(200)
        self.namespaces = await NamespacePool.open(
            self.place / "network",
            subnet=f"10.{octet}.0.0/20",
            target=0,
            host_services={JFS_GUEST_PORT: self.jfs_port},
            runtime=self.place / "run",
        )
        self._stack.push_async_callback(self.namespaces.aclose)

    def attachment(self, workspace_id: str, *, disk_gb: int = 1, **more: object) -> Attachment:
        """The next owner of a workspace, as control would say."""
        rows = self.rows
        rows.epoch[workspace_id] = rows.epoch.get(workspace_id, 0) + 1
        return Attachment(
            workspace_id=workspace_id,
            epoch=rows.epoch[workspace_id],
            generation=rows.generation.get(workspace_id, 0),
            disk_gb=disk_gb,
            **more,  # type: ignore[arg-type]
        )

    async def start(self, attachment: Attachment, *, jfs: bool = False, vm_id: str = "") -> Box:
        begin = time.monotonic()
        vm_id = vm_id or new_id()
        attached = await self.engine.workspaces.attach(attachment, vm_id=vm_id)
        namespace, mount = await self.namespaces.take() if jfs else None, None
        if namespace is not None:
            self._stack.push_async_callback(self.namespaces.release, namespace)
            export = await self.exports.add(vm_id, namespace.host_address, attached.jfs)
            root = export.handle if self.names_root else b""
            mount = Jfs(IPv4Address(GATEWAY_ADDRESS), JFS_GUEST_PORT, export.path, root)
        uid = UidPool.of_installation(self.namespaces.installation).take() if jfs else vms.UID
        vm = await self.vmm.clone(
            vms.SPEC,
            self.place / f"vm-{secrets.token_hex(3)}",
            namespace=namespace,
            uid=uid,
            work_disk=WorkDisk(attached.image, attached.size),
        )
        self._stack.push_async_callback(vm.destroy)
        disk = BlockSync(vm)
        await disk.track()
        channel = await Channel.connect(vm.channel_path, timeout=vms.TIMEOUT)
        self._stack.push_async_callback(channel.aclose)

        async def commit(synced: Synced, used: int) -> None:
            if self.rows.epoch[attachment.workspace_id] != attachment.epoch:
                raise StaleEpoch("Another VM owns the workspace.")
            self.rows.generation[attachment.workspace_id] = synced.generation

        syncer = Syncer(attached, disk, lambda: channel, commit=commit)
        first = welcome.first()
        wish = Configure(
            clock_ns=first.clock_ns, entropy=first.entropy, hostname=first.hostname, root=True, grow=True,
            disk_bytes=vm.disk_bytes, network=first.network if jfs else None, jfs=mount,
        )  # fmt: skip
        await channel.configure(wish, timeout=vms.TIMEOUT)
        return Box(vm, channel, attached, syncer, round((time.monotonic() - begin) * 1000))

    async def end(self, box: Box) -> None:
        """Kill the VM, whatever it was doing."""
        await box.channel.aclose()
        await box.vm.kill()
        await box.attached.release()


@pytest.fixture
def place() -> Iterator[Path]:
    with sessions.folder() as directory:
        yield directory
        for mount in directory.glob("*/mnt"):  # what a program left to its successor
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True, timeout=60)


ON_S3 = pytest.mark.parametrize("storage", ["s3"], indirect=True)
ON_BOTH = pytest.mark.parametrize("storage", ["local", "s3"], indirect=True)


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> StorageSettings:
    """A new volume: in a local directory, unless the test is `ON_S3`."""
    if getattr(request, "param", "local") == "local":
        return StorageSettings.model_validate({"kind": "local"})
    return new_volume(request.getfixturevalue("seaweed"))


@pytest.fixture
async def bench(storage: StorageSettings, place: Path, vmm: QemuVmm) -> AsyncIterator[Bench]:
    await vmm.warm(vms.SPEC)
    async with AsyncExitStack() as stack:
        engine = await Engine.open(storage, place / "host", host_id="h1")
        stack.push_async_callback(engine.close, unmount=True)
        yield Bench(stack, engine, vmm, place)
