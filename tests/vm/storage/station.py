"""A real host program with workspaces, and what it needs: NATS, and an object store if it is to be on S3. Each may be
killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from mags.host.storage.layout import generation_name
from mags.host.storage.seaweedfs import SeaweedFS
from mags.kit.tasks import end
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from tests.kit.host_world import PATIENCE, Caller, HostProgram
from tests.kit.nats_server import NatsProgram


class Station:
    """`workspace` is the one that its VMs have, one after the other."""

    def __init__(self, host: HostProgram, caller: Caller, store: SeaweedFS | None) -> None:
        self.host, self.caller, self.store = host, caller, store
        self.workspace = new_id()
        self._epoch = 0
        self._asking: list[asyncio.Task[None]] = []

    @property
    def generation(self) -> int:
        """The newest that control would know."""
        told = [event for event in self.caller.events if isinstance(event, m.WorkspaceSynced)]
        return max((event.generation for event in told), default=0)

    def image(self, generation: int) -> Path:
        storage = self.host.data / "host" / "storage"
        return storage / "mnt" / "workspaces" / self.workspace / generation_name(generation)

    async def start(self, script: str = "true") -> str:
        """The next VM of the workspace, once its script has ended well."""
        self._epoch += 1
        attachment = m.Attachment(workspace_id=self.workspace, epoch=self._epoch, generation=self.generation, disk_gb=1)
        vm_id, job_id = await self.caller.start(script, attachment=attachment, keep="stay")
        ended = await self.caller.ended(job_id)
        assert ended.exit_code == 0, ended
        return vm_id

    async def run(self, vm_id: str, command: str) -> str:
        """What it wrote; again while its host is being started anew."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    result = await self.caller.exec(vm_id, command)
                    break
                except Problem:
                    await asyncio.sleep(0.2)
        assert result.exit_code == 0, result
        return result.stdout.decode()

    def give(self, vm_id: str, script: str) -> str:
        """Another script for a VM, which may stand still and not read it for long; its job. Asked for until that is
        answered, as control does."""
        job_id = new_id()
        request = m.Run(vm_id=vm_id, script=m.Script(job_id=job_id, script=script))

        async def ask() -> None:
            while True:
                with suppress(Problem):
                    await self.caller.ask("run", request, m.Started, timeout=5)
                    return
                await asyncio.sleep(0.2)

        self._asking.append(asyncio.create_task(ask()))
        return job_id

    async def aclose(self) -> None:
        """Ask for nothing more."""
        await end(self._asking)

    async def says(self, words: str) -> None:
        """The host's log has them."""
        async with asyncio.timeout(PATIENCE):
            while words not in self.host.words():
                await asyncio.sleep(0.1)

    async def sync(self, vm_id: str) -> m.Synced:
        return await self.caller.ask("sync", m.VmRequest(vm_id=vm_id), m.Synced)

    async def synced(self, vm_id: str) -> m.Synced:
        """With patience."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(Problem):
                    return await self.sync(vm_id)
                await asyncio.sleep(0.2)

    async def stop(self, vm_id: str) -> None:
        """End a VM; also when it has died. All that it had is synced or saved then, and told."""
        await self.caller.stop(vm_id)
        await self.caller.told(m.VmChanged, vm_id=vm_id)
        await self.host.forgets(vm_id)

    def processes(self) -> list[int]:
        """JuiceFS's, the watchdog first."""
        wanted = os.fsencode(self.host.data / "host" / "storage" / "mnt")
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                # JuiceFS writes its whole command line anew, as one word.
                words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
                if b"juicefs mount" in words.replace(b"\0", b" ") and wanted in words:
                    found.append(int(entry.name))
        return sorted(found)

    async def storage_says(self, words: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while words not in (await self.caller.presence()).storage:
                pass

    def kill_volume(self, *, whole: bool) -> None:
        """JuiceFS: both processes, or the one that serves."""
        found = self.processes()
        assert found, "no JuiceFS to be killed"
        for pid in found[0 if whole else -1 :]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def forget(at: Station, image: Path | int) -> None:
    """Neither JuiceFS nor the kernel has the image's blocks any more. An open one can be named by its descriptor."""
    for directory in (at.host.data / "host" / "storage" / "cache").glob("*/raw"):
        while directory.exists():  # JuiceFS may write to it meanwhile, as it joins what is fragmented
            shutil.rmtree(directory, ignore_errors=True)
    descriptor = image if isinstance(image, int) else os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        if descriptor != image:
            os.close(descriptor)


@asynccontextmanager
async def station(place: Path, cache: Path, *, s3: bool, **settings: object) -> AsyncIterator[Station]:
    """Regular syncs are as good as off. cache: of images."""
    async with AsyncExitStack() as stack:
        store = SeaweedFS(place / "weed") if s3 else None
        if store is not None:
            await store.start()
            stack.push_async_callback(store.stop)
            settings |= {
                "storage_kind": "s3",
                "storage_endpoint": store.endpoint,
                "storage_access_key": store.access_key,
                "storage_secret_key": store.secret_key,
            }
        nats = NatsProgram(place / "nats")
        nats.start()
        stack.callback(nats.kill)
        wanted = {"storage_put_timeout_s": 3, "storage_get_timeout_s": 3, "storage_sync_interval_s": 3600, **settings}
        host = HostProgram(place / "h", nats.url, cache, **wanted)
        host.start()
        try:
            async with Caller.connect(nats.url) as caller:
                await caller.ready()
                at = Station(host, caller, store)
                try:
                    yield at
                finally:
                    await at.aclose()
                await caller.end_all()
                assert host.kill(signal.SIGTERM) == 0
        finally:
            if host.running:
                print(host.words()[-4000:])
                host.kill()
            mount = host.data / "host" / "storage" / "mnt"
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True, timeout=60)
