"""From presences and reservations to a placement."""

from __future__ import annotations

import time
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncSession

from mags.control import errors
from mags.control.lifecycles.world import World
from mags.control.placement import Candidate, Choice, Need, choose
from mags.control.records import vms
from mags.hostclient import HostState

STORAGE_OK = "ok"


async def place(world: World, session: AsyncSession, need: Need) -> Choice:
    """Choose among the hosts that are heard now. Reservations matter only between several."""
    views = world.hosts.all()
    moment = time.monotonic()
    need = replace(need, exclude=frozenset(host for host, until in world.refused.items() if until > moment))
    reserved = await vms.reserved(session) if len(views) > 1 else {}
    return choose(
        (
            Candidate(
                host_id=view.host_id,
                live=world.hosts.state(view.host_id) is HostState.LIVE,
                accepting=view.presence.accepting,
                reason=view.presence.reason,
                memory_mb=view.presence.memory_mb,
                reserved_mb=reserved.get(view.host_id, 0),
                load=view.presence.load / max(1, view.presence.cpus),
                images=view.presence.images,
                storage=view.presence.storage == STORAGE_OK,
            )
            for view in views
        ),
        need,
    )


def storage_host(world: World) -> str:
    """A live host that can get at the store of workspaces; Problem(not_available) when there is none."""
    for view in world.hosts.live():
        if view.presence.storage == STORAGE_OK:
            return view.host_id
    raise errors.no_storage(storage_trouble(world) or "")


def storage_trouble(world: World) -> str | None:
    """None when a live host keeps synced workspaces; else what is wrong (or nothing, when none ever does)."""
    trouble = ""
    for view in world.hosts.live():
        if view.presence.storage == STORAGE_OK:
            return None
        trouble = trouble or view.presence.storage
    return trouble
