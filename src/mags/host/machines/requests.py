"""The verbs of a host over NATS (table in `mags.protocol.messages`): each request is a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from mags.host.attachments import Attachments
from mags.host.machines import execs, files
from mags.host.machines.archives import open_archive
from mags.host.machines.cells import shape
from mags.host.machines.fleet import Fleet
from mags.host.machines.problems import as_problem
from mags.host.machines.sessions import Session, opening_in
from mags.host.vmm.driver import Vmm
from mags.kit.machine import machine_id
from mags.protocol import edge, subjects
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from mags.protocol.guest import Configure

log = logging.getLogger(__name__)

BACKLOG = 65536
"""Requests that may wait in the client's queue; more are dropped, and their callers time out."""
Handler = Callable[[bytes], Awaitable[m.Value]]


class Requests:
    def __init__(
        self, client: Client, host_id: str, fleet: Fleet, vmm: Vmm, attachments: Attachments | None = None
    ) -> None:
        self._client, self._host_id = client, host_id
        self._fleet, self._vmm, self._attachments = fleet, vmm, attachments
        self._machine_id = machine_id()
        self._tasks: asyncio.TaskGroup
        self._handlers: dict[str, Handler] = {
            "start": self._start,
            "run": self._run,
            "cancel": self._cancel,
            "stop": self._stop,
            "exec": self._exec,
            "open": self._open,
            "files": self._files,
            "sync": self._sync,
            "sleep": self._sleep,
            "wake": self._wake,
            "adjust": self._adjust,
            "resize": self._resize,
            "dial": self._dial,
            "list": self._list,
            "warm": self._warm,
            "archive": self._archive,
            "stored": self._stored,
            "drop": self._drop,
        }

    async def serve(self) -> None:
        """For ever; requests under way are cancelled with it."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._client.subscribe(
                subjects.rpc(self._host_id, "*"), cb=self._on_request, pending_msgs_limit=BACKLOG
            )
            await self._client.subscribe(f"mags.host.{self._host_id}.activity.*", cb=self._on_activity)
            await asyncio.Event().wait()

    async def _on_request(self, message: Msg) -> None:
        self._tasks.create_task(self._answer(message))

    async def _on_activity(self, message: Msg) -> None:
        try:
            machine = self._fleet.get(message.subject.rpartition(".")[2])
            machine.callers.note(m.decode(message.data, edge.Activity).edge)
        except Problem:
            return
        machine.touch()

    async def _answer(self, message: Msg) -> None:
        verb = message.subject.rpartition(".")[2]
        try:
            handler = self._handlers.get(verb)
            if handler is None:
                raise Problem("bad_request", f"A host knows no verb {verb!r}.")
            answer = m.answer(await handler(message.data))
        except Exception as error:
            problem = as_problem(error)
            if problem.code == "internal":
                log.exception("the request %s failed", verb)
            answer = m.refusal(problem)
        if not message.reply:
            return
        try:
            await self._client.publish(message.reply, answer)
        except (nats.errors.Error, OSError) as error:
            log.warning("the answer to %s can't be sent: %s", verb, error)

    async def _start(self, data: bytes) -> m.Value:
        return await self._fleet.start(m.decode(data, m.Start))

    async def _run(self, data: bytes) -> m.Value:
        wish = m.decode(data, m.Run)
        machine = self._fleet.get(wish.vm_id)
        if wish.adjust is not None:
            machine.adjust(wish.adjust)
        return await machine.run(wish.script, keep=wish.keep)

    async def _cancel(self, data: bytes) -> m.Value:
        wish = m.decode(data, m.Cancel)
        try:
            self._fleet.get(wish.vm_id).cancel(wish.job_id)
        except Problem as problem:
            if problem.code != "gone":
                raise
        return m.Done()

    async def _stop(self, data: bytes) -> m.Value:
        await self._fleet.stop(m.decode(data, m.Stop).vm_id)
        return m.Done()

    async def _exec(self, data: bytes) -> m.Value:
        wish = m.decode(data, m.Exec)
        return await execs.execute(self._fleet.get(wish.vm_id), wish)

    async def _open(self, data: bytes) -> m.Value:
        wish = m.decode(data, m.Open)
        machine = self._fleet.get(wish.vm_id)
        opening = partial(opening_in, machine, wish)
        session = Session(self._client, wish, opening, alive=machine.touch, gone="The VM has ended.")
        machine.attendants.spawn(session.run(), f"session-{wish.session_id}")
        return await session.opened

    async def _files(self, data: bytes) -> m.Value:
        wish = m.decode(data, m.Files)
        return await files.handle(self._fleet.get(wish.vm_id), wish)

    async def _sleep(self, data: bytes) -> m.Value:
        wish = m.decode(data, m.VmRequest)
        await self._fleet.get(wish.vm_id).sleep(force=wish.force)
        return m.Done()

    async def _wake(self, data: bytes) -> m.Value:
        async with self._fleet.get(m.decode(data, m.VmRequest).vm_id).use():
            return m.Done()

    async def _adjust(self, data: bytes) -> m.Value:
        wish = m.decode(data, m.Adjust)
        self._fleet.get(wish.vm_id).adjust(wish)
        return m.Done()

    async def _dial(self, data: bytes) -> m.Value:
        wish = m.decode(data, m.Dial)
        if not 0 < wish.port < 1 << 16:
            raise Problem("invalid", "A port is a number from 1 to 65535.")
        machine = self._fleet.get(wish.vm_id)
        async with machine.use() as cell:
            machine.callers.note(wish.edge)
            return m.Dialed(address=cell.namespace.address, port=wish.port, machine_id=self._machine_id)

    async def _list(self, _: bytes) -> m.Value:
        return self._fleet.list()

    async def _warm(self, data: bytes) -> m.Value:
        await self._vmm.warm(shape(m.decode(data, m.Warm).spec))
        return m.Done()

    async def _drop(self, data: bytes) -> m.Value:
        wish = m.decode(data, m.Drop)
        await self._storage().drop(wish.workspace_id)
        return m.Done()

    async def _archive(self, data: bytes) -> m.Value:
        wish = m.decode(data, m.Archive)
        opening = partial(open_archive, self._storage(), wish)
        session = Session(self._client, wish, opening, alive=_nothing, gone="The host program has ended.")
        self._tasks.create_task(session.run(), name=f"session-{wish.session_id}")
        return await session.opened

    async def _stored(self, data: bytes) -> m.Value:
        return await self._storage().stored(m.decode(data, m.Stored))

    def _storage(self) -> Attachments:
        if self._attachments is None:
            raise Problem("not_available", "This host has no storage for synced workspaces.")
        return self._attachments

    async def _sync(self, data: bytes) -> m.Value:
        return await self._fleet.get(m.decode(data, m.VmRequest).vm_id).keeper.sync()

    async def _resize(self, data: bytes) -> m.Value:
        wish = m.decode(data, m.Resize)
        machine = self._fleet.get(wish.vm_id)
        await machine.keeper.grow(wish.disk_gb)
        async with machine.use() as cell:
            await cell.channel.configure(Configure(grow=True, disk_bytes=cell.vm.disk_bytes))
        return m.Done()


def _nothing() -> None:
    """A session without a VM keeps none awake."""
