"""Workspaces that are on the volume and not in the records: a second installation, or records from a backup.

Each host is asked once per start of its program, when its storage is well. What is recorded already is never changed.
A workspace whose owner is not known here goes to the first user, under its own name or, where that is taken, under
one with a part of its id.
"""

from __future__ import annotations

import logging

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.lifecycles.candidates import STORAGE_OK
from mags.control.lifecycles.world import World
from mags.control.models import User, Workspace
from mags.control.records import accounts, workspaces
from mags.hostclient import HostView
from mags.protocol.errors import Problem
from mags.protocol.ids import WORKSPACE_NAME, is_id
from mags.protocol.messages import Stored, StoredList, StoredWorkspace

log = logging.getLogger("mags.control.discovery")

PAGE = 500
NAME_LENGTH = 63
TIMEOUT = 120.0


class Discovery:
    """`hear` every presence."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: dict[str, str] = {}
        """Host -> the start of its program that was asked."""

    def hear(self, view: HostView) -> None:
        presence = view.presence
        if presence.storage == STORAGE_OK and self._asked.get(view.host_id) != presence.boot:
            self._asked[view.host_id] = presence.boot
            self._world.spawn(self._ask(view.host_id), f"discovery-{view.host_id}")

    async def _ask(self, host_id: str) -> None:
        try:
            await discover(self._world, host_id)
        except Problem as problem:
            log.warning("host %s could not say what is on the volume: %s", host_id, problem.message)
            self._asked.pop(host_id, None)  # its next presence asks again


async def discover(world: World, host_id: str) -> None:
    """Record what is on the volume that this host sees. Problem when it does not answer."""
    # Known before the host is asked: what is deleted meanwhile is not found again in an older list.
    async with world.db.read() as session:
        known = set((await session.execute(select(Workspace.id))).scalars())
    after = ""
    while True:
        wish = Stored(after=after, limit=PAGE)
        page = (await world.client.request(host_id, "stored", wish, StoredList, timeout=TIMEOUT)).workspaces
        for stored in page:
            if stored.id not in known and is_id(stored.id):
                await _record(world, stored)
        if len(page) < PAGE:
            return
        after = page[-1].id


async def _record(world: World, stored: StoredWorkspace) -> None:
    async with world.db.write() as session:
        owner = await _owner(session, world, stored)
        if owner is None or await session.get(Workspace, stored.id) is not None:
            return
        for name in _names(stored):
            try:
                async with session.begin_nested():
                    await workspaces.add(
                        session,
                        owner,
                        name,
                        workspace_id=stored.id,
                        generation=stored.generation,
                        disk_gb=stored.disk_gb,
                        size_bytes=stored.size_bytes,
                        epoch=stored.epoch,
                        image=stored.image or None,
                        synced_ms=stored.synced_ms or None,
                    )
                log.info("workspace %s was found on the volume; it is called %s", stored.id, name)
                return
            except IntegrityError:
                continue
    log.warning("workspace %s is on the volume and could not be recorded", stored.id)


async def _owner(session: AsyncSession, world: World, stored: StoredWorkspace) -> str | None:
    """Whose it is: the user that the volume names, else the first one; None when there is neither."""
    if is_id(stored.owner) and await session.get(User, stored.owner) is not None:
        return stored.owner
    first = await accounts.user_by_name(session, world.settings.bootstrap_user)
    return first.id if first is not None else None


def _names(stored: StoredWorkspace) -> list[str]:
    mark = stored.id[:8]
    if not WORKSPACE_NAME.fullmatch(stored.name):
        return [f"workspace-{mark}", f"workspace-{stored.id}"]
    return [stored.name, f"{stored.name[: NAME_LENGTH - 9]}-{mark}", f"workspace-{stored.id}"]
