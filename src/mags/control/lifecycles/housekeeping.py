"""What is swept now and then: answers of old idempotency keys, and the data of deleted workspaces."""

from __future__ import annotations

import logging

from sqlalchemy import delete, select, update

from mags.control.lifecycles.candidates import STORAGE_OK
from mags.control.lifecycles.world import World
from mags.control.models import Vm, Workspace
from mags.control.records.idempotency import forget_old
from mags.protocol.errors import Problem
from mags.protocol.messages import Done, Drop

log = logging.getLogger("mags.control.housekeeping")

BATCH = 16


async def housekeeping(world: World) -> None:
    await drop_deleted(world)
    if world.swept():
        async with world.db.write() as session:
            await forget_old(session)


async def drop_deleted(world: World) -> None:
    """Have a host remove the data of deleted workspaces, then forget them."""
    async with world.db.read() as session:
        rows = (
            await session.execute(select(Workspace.id, Workspace.synced).where(Workspace.deleted_ms > 0).limit(BATCH))
        ).all()
    host = next((view for view in world.hosts.live() if view.presence.storage == STORAGE_OK), None)
    for workspace_id, synced in rows:
        if synced:
            if host is None:
                continue
            try:
                await world.client.request(host.host_id, "drop", Drop(workspace_id=workspace_id), Done, timeout=120)
            except Problem as problem:
                log.info("workspace %s could not be removed yet: %s", workspace_id, problem.message)
                continue
        async with world.db.write() as session:
            await session.execute(update(Vm).where(Vm.workspace_id == workspace_id).values(workspace_id=None))
            await session.execute(delete(Workspace).where(Workspace.id == workspace_id))
