"""The supervisor: starts the programs in order, keeps them running, ends them in the other order.

    lock -> ports -> broker (-> object store) -> control, host, edge
    (up) -> edge -> VMs asleep or ended -> control -> host -> broker; if VMs go on: edge -> host -> control -> broker

A program that dies is started again (kit.children). When the supervisor itself is killed, its programs end with it;
VMs go on, and the next `mags up` takes them over.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from socket import socket
from typing import Protocol

from mags import __version__
from mags.kit import tasks
from mags.kit.addresses import split_address
from mags.kit.children import Child, ChildFailed
from mags.kit.files import write_atomic
from mags.supervisor import broker, clearing, client_config, ports, programs, status, storage, vms
from mags.supervisor.broker_disk import BrokerDisk
from mags.supervisor.config import Settings, inherited_environment, reachable, reachable_url
from mags.supervisor.layout import Layout
from mags.supervisor.lock import Lock
from mags.supervisor.presence import PresenceWatch

BROKER_TRIES = 3


class Service(Protocol):
    """Something that runs beside us: a `Child`, or what wraps one."""

    @property
    def pid(self) -> int | None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Trouble(Exception):
    """It can't be started; the sentence says why and what to do."""


class Supervisor:
    """`note` is told each step in a sentence."""

    def __init__(self, settings: Settings, *, note: Callable[[str], None]) -> None:
        self.settings, self.layout = settings, Layout(settings.data_dir)
        self.api_url = reachable_url(settings.api)
        self._note = note
        self._services: dict[str, Service] = {}
        self._storage: dict[str, str] = {}
        self.restarts = 0
        self._hosts: PresenceWatch | None = None
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Everything up and ready. When it is not: one of `foreground.FAILURES`, and nothing is left."""
        self._check_user()
        self.layout.make()
        try:
            lock = Lock(self.layout)
            self._stack.callback(lock.release)
            if await clearing.end_programs(self.layout):
                self._note("ended what a killed `mags up` had left")
            self._choose_storage()
            listener = self._take_ports()
            nats, users = await self._start_broker()
            self._hosts = PresenceWatch(broker.url("supervisor", users, nats), self._host_id)
            await self._hosts.start()
            self._stack.push_async_callback(self._hosts.stop)
            token = self._bootstrap_token()
            if self.settings.s3 == storage.SEAWEEDFS:
                await self._start_object_store()
            await self._start_programs(users, nats, listener)
            if "control" in self.settings.programs:
                for note in client_config.save(self.api_url, token, environment=inherited_environment()):
                    self._note(note)
            lock.publish(self._record(nats))
        except BaseException:
            await self.stop()
            raise

    async def put_vms_away(self) -> None:
        """Asleep or ended, before the host program stops.

        The edge ends first, or a visitor would wake what has just been put to sleep. Control tells its clients how
        their jobs ended; what it lets in until it ends too is put away after that.
        """
        if self._hosts is None or "host" not in self.settings.programs:
            return
        here = [presence.host_id for presence in self._hosts.own]
        until = asyncio.get_running_loop().time() + vms.DEADLINE
        for program in ("edge", "control"):
            if program in self._services:
                await self._services[program].stop()
            await vms.put_away(self._hosts.client, here, until=until, note=self._note)

    async def stop(self) -> None:
        """End everything, in the other order. Idempotent. VMs go on unless they were stopped before."""
        await self._stack.aclose()
        with suppress(OSError):  # of VMs that go on, something is left
            self.layout.sockets.rmdir()

    async def clear(self) -> None:
        """After `stop`: nothing is left in the kernel, unless VMs could not be put away."""
        if "host" not in self.settings.programs:
            return
        if left := clearing.vms_left(self.layout):
            self._note(f"{left} VMs could not be put away and go on. `mags down --force` ends them as they are.")
            return
        try:
            await clearing.clear(self.layout)
        except clearing.NotCleared as error:  # another `mags up` was quick, say
            self._note(str(error))

    def status_line(self, *, counts: bool) -> str:
        """See `status.line`."""
        up = {name: service.pid is not None for name, service in self._services.items()}
        return status.line(self.api_url, up, self._hosts.hosts if self._hosts else [], self.restarts, counts=counts)

    @property
    def presence(self) -> PresenceWatch | None:
        return self._hosts

    @property
    def _host_id(self) -> str:
        """What our host program will call itself."""
        from mags.host.config import Settings as HostSettings

        return HostSettings().host_id

    async def _start_object_store(self) -> None:
        from mags.host.storage.seaweedfs import SeaweedFS

        store = SeaweedFS(self.layout.seaweedfs, pid_file=self.layout.pid_file("seaweedfs"))
        await self._run("seaweedfs", store)
        self._stack.push_async_callback(store.stop)
        self._storage = {
            "STORAGE_KIND": "s3",
            "STORAGE_ENDPOINT": store.endpoint,
            "STORAGE_ACCESS_KEY": store.access_key,
            "STORAGE_SECRET_KEY": store.secret_key,
        }

    async def _start_programs(self, users: dict[str, str], nats: str, listener: socket | None) -> None:
        """All at once: none waits for another, and most of the time goes into Python's imports."""
        assert self._hosts is not None
        ready: dict[str, programs.Ready] = {
            "control": partial(programs.answers_http, self.settings.api, "/api/v1/health"),
            "host": self._hosts.host_is_new,
            "edge": self._edge_is_ready,
        }
        made: dict[str, Child] = {}
        for name in ("control", "host", "edge"):
            if name not in self.settings.programs:
                continue
            if not programs.is_installed(name):
                raise Trouble(f"mags.{name} is not installed: install Mags with the extra [server].")
            url = broker.url(name, users, nats)
            environment = programs.environment(name, self.settings, self.layout, url, storage=self._storage)
            descriptors = []
            if name == "control" and listener is not None:
                descriptors = [listener.fileno()]
                environment["MAGS_CONTROL_FD"] = str(listener.fileno())
            made[name] = programs.child(
                name, self.settings, self.layout, environment, ready[name], descriptors, on_restart=self._restarted
            )
        for child in made.values():  # they end in the other order, whichever was ready first
            self._stack.push_async_callback(child.stop)
        starts = [asyncio.ensure_future(self._run(name, child)) for name, child in made.items()]
        try:
            await asyncio.gather(*starts)
        finally:
            await tasks.end(starts)

    async def _run(self, name: str, service: Service) -> None:
        self._note(f"starting {name}")
        await service.start()
        self._services[name] = service

    async def _edge_is_ready(self) -> bool:
        return await programs.accepts(self.settings.apps) and await programs.accepts(self.settings.ssh)

    def _check_user(self) -> None:
        if "host" in self.settings.programs and os.geteuid() != 0:
            raise Trouble(
                "The host program needs root (networks, mounts, users of VMs). Run `sudo mags up`, or leave it to "
                "another machine with `mags up --programs control,edge --data-dir DIR`."
            )

    def _choose_storage(self) -> None:
        told = inherited_environment().get("MAGS_HOST_STORAGE_KIND")
        kind = storage.choose(self.settings.s3, told, self.layout) if "host" in self.settings.programs else ""
        self.settings = self.settings.model_copy(update={"s3": kind})

    def _take_ports(self) -> socket | None:
        """The API's listening socket is ours: while control is started again, its clients wait and see nothing."""
        if "edge" in self.settings.programs:
            ports.check(self.settings.apps, use="public URLs", flag="--apps")
            ports.check(self.settings.ssh, use="SSH", flag="--ssh")
        if "control" not in self.settings.programs:
            return None
        listener = ports.listen(self.settings.api, use="the API", flag="--api")
        self._stack.callback(listener.close)
        self.settings = self.settings.model_copy(update={"api": ports.address_of(listener)})
        self.api_url = reachable_url(self.settings.api)
        return listener

    async def _start_broker(self) -> tuple[str, dict[str, str]]:
        """Its address and the programs' passwords. A free port may be taken before it is ours: then another one."""
        users = broker.passwords(self.layout.nats_users)
        host, fixed = split_address(self.settings.nats)
        if fixed:
            ports.check(self.settings.nats, use="NATS", flag="--nats")
        for tries_left in reversed(range(1 if fixed else BROKER_TRIES)):
            address = self.settings.nats if fixed else f"{host}:{ports.free_port(host)}"
            text = programs.nats_configuration(self.layout, address, users)
            write_atomic(self.layout.nats_config, text.encode(), mode=0o600)
            child = programs.broker_child(self.layout, address, on_restart=self._restarted)
            try:
                await self._run("nats-server", child)
                self._stack.push_async_callback(child.stop)
                watching = asyncio.create_task(BrokerDisk(child, self.layout.nats).watch(), name="broker-disk")
                self._stack.push_async_callback(tasks.end, [watching])
                return reachable(address), users
            except ChildFailed:
                if not tries_left:
                    raise
        raise AssertionError

    def _bootstrap_token(self) -> str:
        path = self.layout.bootstrap_token
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            token = f"mags_{secrets.token_urlsafe(32)}"
            write_atomic(path, token.encode() + b"\n", mode=0o600, durable=True)
            return token

    def _record(self, nats: str) -> dict[str, object]:
        return {
            "pid": os.getpid(),
            "api_url": self.api_url,
            "apps": self.settings.apps,
            "ssh": self.settings.ssh,
            "nats": nats,
            "host_id": self._host_id,
            "programs": list(self.settings.programs),
            "s3": self.settings.s3,
            "version": __version__,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }

    def _restarted(self) -> None:
        self.restarts += 1
