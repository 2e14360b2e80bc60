"""A real host program, and a caller that speaks to it as control does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.aio.subscription import Subscription

from mags.hostclient import HostClient
from mags.kit import nats
from mags.protocol import messages as m
from mags.protocol import subjects
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from tests.kit.cache import share

T = TypeVar("T", bound=m.Value)
PATIENCE = 120.0
"""Seconds that anything may take on a busy machine."""
HOST_ID = "h1"


class HostProgram:
    """`python -m mags.host` on a data directory of its own."""

    def __init__(self, folder: Path, nats_url: str, cache: Path, **settings: object) -> None:
        self.data = folder / "data"
        self.log = folder / "host.log"
        folder.mkdir(parents=True, exist_ok=True)
        share(self.data / "host", cache)
        values = {
            "host_id": HOST_ID,
            "nats_url": nats_url,
            "data_dir": self.data,
            "cache_dir": cache,
            "pool_target": 0,
            "namespace_target": 2,
            "memory_reserve_mb": 256,
            "disk_reserve_gb": 1,
            **settings,
        }
        self._env = {**os.environ, **{f"MAGS_HOST_{name.upper()}": str(value) for name, value in values.items()}}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, **settings: object) -> None:
        env = {**self._env, **{f"MAGS_HOST_{name.upper()}": str(value) for name, value in settings.items()}}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "mags.host"], env=env, stdout=log, stderr=log)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End it and wait; its status."""
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(timeout=PATIENCE)
        self._process = None
        return status

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def words(self) -> str:
        return self.log.read_text(errors="replace")

    def vms(self) -> list[str]:
        """Handles of the VMs that have a directory."""
        directory = self.data / "host" / "vms"
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []

    def record(self, vm_id: str) -> dict[str, Any] | None:
        """What is on disk of a VM."""
        for path in (self.data / "host" / "records").glob("*.json"):
            record: dict[str, Any] = json.loads(path.read_text())
            if record.get("vm_id") == vm_id:
                return record
        return None

    async def forgets(self, vm_id: str) -> None:
        """Nothing of a VM is left."""
        async with asyncio.timeout(PATIENCE):
            while self.record(vm_id) is not None:
                await asyncio.sleep(0.02)

    def hypervisor(self, vm_id: str) -> int:
        """The process id of a VM's QEMU."""
        record = self.record(vm_id)
        assert record is not None
        directory = str(self.data / "host" / "vms" / record["handle"])
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"qemu" in command[0] and directory.encode() in command:
                    return int(entry.name)
        raise AssertionError(f"no hypervisor for {directory}")


@dataclass
class Ended:
    """A job at its end."""

    exit_code: int | None
    error: str | None
    stdout: bytes = b""
    stderr: bytes = b""
    system: bytes = b""
    messages: list[m.OutputMessage] = field(default_factory=list)


class Caller:
    """Speaks to the host as control does."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.hosts = HostClient(client)
        self.events: list[m.Event] = []
        self._news = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[Caller]:
        client = await nats.connect(url, name="test", timeout=PATIENCE)
        caller = cls(client)
        watching = asyncio.create_task(caller._watch())
        try:
            yield caller
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await client.close()

    async def ask(self, verb: str, value: m.Value, kind: type[T], timeout: float = PATIENCE) -> T:
        return await self.hosts.request(HOST_ID, verb, value, kind, timeout=timeout)

    async def ready(self) -> None:
        """The host answers."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.ask("list", m.Empty(), m.VmList, timeout=5)
                    return
                except Problem:
                    await asyncio.sleep(0.05)

    async def start(self, script: str | None, *, timeout_s: int | None = None, **wish: Any) -> tuple[str, str]:
        """A VM with a script: its id and the job's."""
        vm_id, job_id = wish.pop("vm_id", new_id()), wish.pop("job_id", new_id())
        environment = wish.pop("script_environment", {})
        spec = wish.pop("spec", m.VmSpec(memory_mb=256))
        await self.ask(
            "start",
            m.Start(
                vm_id=vm_id,
                spec=spec,
                owner="tester",
                script=m.Script(
                    job_id=job_id,
                    script=script,
                    url=wish.pop("url", None),
                    environment=environment,
                    timeout_s=timeout_s,
                    files=wish.pop("files", []),
                ),
                **wish,
            ),
            m.Started,
        )
        return vm_id, job_id

    async def run(self, vm_id: str, script: str, **wish: Any) -> Ended:
        """Another script in a VM, to its end."""
        job_id = new_id()
        await self.ask("run", m.Run(vm_id=vm_id, script=m.Script(job_id=job_id, script=script), **wish), m.Started)
        return await self.ended(job_id)

    async def whole(self, script: str, **wish: Any) -> Ended:
        """A script in a VM of its own, to its end."""
        _, job_id = await self.start(script, **wish)
        return await self.ended(job_id)

    async def exec(self, vm_id: str, command: str, **wish: Any) -> m.ExecResult:
        return await self.ask("exec", m.Exec(vm_id=vm_id, command=command, **wish), m.ExecResult)

    async def stop(self, vm_id: str) -> None:
        await self.ask("stop", m.Stop(vm_id=vm_id), m.Done)

    async def presence(self) -> m.Presence:
        """The next that the host says of itself."""
        subscription = await self.client.subscribe(subjects.presence(HOST_ID), max_msgs=1)
        return m.decode((await subscription.next_msg(timeout=PATIENCE)).data, m.Presence)

    async def pool_has(self, count: int) -> None:
        """So many VMs wait."""
        async with asyncio.timeout(PATIENCE):
            while (await self.presence()).idle_vms != count:
                pass

    async def end_all(self) -> None:
        """No VM is left."""
        await self.ready()
        vms = await self.ask("list", m.Empty(), m.VmList)
        await asyncio.gather(*(self.stop(vm.vm_id) for vm in vms.vms))

    async def ended(self, job_id: str) -> Ended:
        """All output of a job up to its end."""
        jetstream = self.client.jetstream(timeout=30)
        async with asyncio.timeout(PATIENCE):
            subscription = await jetstream.subscribe(
                subjects.output(job_id),
                ordered_consumer=True,
                pending_msgs_limit=-1,
                pending_bytes_limit=-1,
            )
            try:
                return await _collect(subscription)
            finally:
                await subscription.unsubscribe()

    async def said(self, job_id: str, words: bytes, *, times: int = 1) -> bytes:
        """All that a job's log has on stdout, once these words were in it so often; its end does not count."""
        subscription = await self.client.jetstream(timeout=30).subscribe(subjects.output(job_id), ordered_consumer=True)
        text = bytearray()
        try:
            async with asyncio.timeout(PATIENCE):
                async for message in subscription.messages:
                    value = m.decode_output(message.data)
                    if isinstance(value, m.Output) and value.stream == 1:
                        text += value.data
                    if text.count(words) >= times:
                        break
        finally:
            await subscription.unsubscribe()
        return bytes(text)

    async def told(self, kind: type[T], *, about: str = "", **attributes: object) -> T:
        """The first event of a kind that has these attributes, and these words in its reason."""

        def found() -> T | None:
            for event in self.events:
                fits = isinstance(event, kind) and about in getattr(event, "reason", "")
                if fits and all(getattr(event, name) == value for name, value in attributes.items()):
                    return event  # type: ignore[return-value]
            return None

        async with asyncio.timeout(PATIENCE):
            async with self._news:
                await self._news.wait_for(lambda: found() is not None)
        event = found()
        assert event is not None
        return event

    async def _watch(self) -> None:
        while True:
            try:
                subscription = await self.client.jetstream(timeout=30).subscribe(
                    subjects.event(HOST_ID), ordered_consumer=True
                )
                break
            except Exception:
                await asyncio.sleep(0.1)
        async for message in subscription.messages:
            async with self._news:
                self.events.append(m.decode_event(message.data))
                self._news.notify_all()


async def _collect(subscription: Subscription) -> Ended:
    streams = {1: bytearray(), 2: bytearray(), 3: bytearray()}
    messages: list[m.OutputMessage] = []
    async for message in subscription.messages:
        value = m.decode_output(message.data)
        messages.append(value)
        if isinstance(value, m.OutputEnd):
            out, err, system = (bytes(streams[number]) for number in (1, 2, 3))
            return Ended(value.exit_code, value.error, out, err, system, messages)
        assert value.offset == len(streams[value.stream]), "a hole in the output, or bytes twice"
        streams[value.stream] += value.data
    raise AssertionError("the output ended without an end")
