"""Workspaces out of the store and into it, as tar archives that a host writes and reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control import errors
from mags.control.db import now_ms
from mags.control.http.streams import Stream
from mags.control.lifecycles.candidates import storage_host
from mags.control.lifecycles.syncing import sync_if_up
from mags.control.lifecycles.world import World
from mags.control.models import Workspace
from mags.control.records import workspaces
from mags.control.records.accounts import Caller
from mags.control.records.idempotency import Earlier, Once, exactly_once
from mags.hostclient import Session
from mags.protocol.errors import Problem
from mags.protocol.ids import WORKSPACE_NAME, new_id
from mags.protocol.messages import Archive, Done, Drop

TAR = "application/x-tar"


async def export(world: World, caller: Caller, name: str) -> Stream:
    """The newest files; synced first when a VM has them. Problem before the first byte."""
    async with world.db.read() as session:
        row = await workspaces.get(session, caller.user_id, name)
    if not row.synced:
        raise Problem("conflict", f"Workspace {name!r} is only on a VM's disk; use `mags cp` to get its files.")
    await sync_if_up(world, row.id)
    async with world.db.read() as session:
        row = await workspaces.get(session, caller.user_id, name)
    wish = Archive(session_id=new_id(), direction="export", workspace_id=row.id, generation=row.generation, name=name)
    return Stream(_bytes(await Session.open(world.client, storage_host(world), wish)), media_type=TAR)


async def _bytes(session: Session) -> AsyncGenerator[bytes, None]:
    async with session:
        async for frame in session:
            yield frame.data


async def bring(
    world: World,
    caller: Caller,
    name: str,
    body: AsyncIterator[bytes],
    once: Once | None,
    *,
    disk_gb: int | None,
    view: Callable[[Workspace], dict[str, Any]],
) -> Earlier:
    """The answer, with the new workspace. Problem(conflict) when the name is taken, invalid when the archive is bad."""
    if not WORKSPACE_NAME.fullmatch(name):
        raise errors.invalid("id", "Use letters, digits, '.', '_' and '-', at most 63, a letter or digit first.")
    async with world.db.read() as session:
        if await workspaces.find(session, caller.user_id, name) is not None:
            raise _taken(name)
    host_id = storage_host(world)
    wish = Archive(session_id=new_id(), direction="import", workspace_id=new_id(), owner=caller.user_id, name=name)
    async with await Session.open(world.client, host_id, wish) as host:
        async for chunk in body:
            # Once it is refused the rest is read all the same: an answer before the end may never reach its sender.
            if not host.ended:
                await host.write(chunk)
        await host.eof()
        while await host.read() is not None:
            pass
        details = host.end.details if host.end is not None else {}

    async def make(session: AsyncSession) -> Earlier:
        row = await workspaces.add(
            session,
            caller.user_id,
            name,
            workspace_id=wish.workspace_id,
            generation=1,
            disk_gb=max(disk_gb or 1, int(details.get("disk_gb", 1))),
            size_bytes=int(details.get("size_bytes", 0)),
            synced_ms=now_ms(),
            image=str(details.get("image", "")) or None,
        )
        return Earlier(201, view(row))

    answer: Earlier | None = None
    try:
        answer, made = await exactly_once(world.db, caller.user_id, once, make)
        if made:
            return answer
    except IntegrityError:
        async with world.db.read() as session:
            found = await session.get(Workspace, wish.workspace_id)
        if found is not None:  # seen on the volume (lifecycles.discovery) before we could record it
            return Earlier(201, view(found))
    await world.client.request(host_id, "drop", Drop(workspace_id=wish.workspace_id), Done, timeout=120)
    if answer is None:
        raise _taken(name)
    return answer


def _taken(name: str) -> Problem:
    return Problem("conflict", f"You have a workspace {name!r} already; choose another name or delete that one.")
