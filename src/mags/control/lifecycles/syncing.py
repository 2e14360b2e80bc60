"""Workspaces' syncs: on wish, and their commit in the records.

A sync counts only under the epoch of the workspace's present attachment, and only forwards: a host that comes back from
a partition with an older epoch changes nothing, and its copy of the VM is stopped.
"""

from __future__ import annotations

import logging

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.lifecycles.world import World
from mags.control.models import Vm, Workspace
from mags.protocol.errors import Problem
from mags.protocol.messages import Synced, VmRequest

log = logging.getLogger("mags.control.syncing")


async def commit(
    session: AsyncSession, workspace_id: str, *, epoch: int, generation: int, at_ms: int, size_bytes: int | None = None
) -> bool:
    """Make the generation the newest one. False when the epoch is not the present one (the copy is stale)."""
    values: dict[str, int] = {"generation": generation, "synced_ms": at_ms}
    if size_bytes is not None:
        values["size_bytes"] = size_bytes
    await session.execute(
        update(Workspace)
        .where(Workspace.id == workspace_id, Workspace.epoch == epoch, Workspace.generation <= generation)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    workspace = await session.get(Workspace, workspace_id, populate_existing=True)
    return workspace is not None and workspace.epoch == epoch and workspace.deleted_ms == 0


async def sync(world: World, vm: Vm) -> Synced:
    """Sync now; returned when the bytes are durable and recorded."""
    if vm.workspace_id is None or not vm.attached or vm.host_id is None:
        raise Problem("conflict", "This VM has no synced workspace, so there is nothing to sync.")
    synced = await world.client.request(
        vm.host_id, "sync", VmRequest(vm_id=vm.id), Synced, timeout=world.settings.stop_timeout_s
    )
    if synced.generation:
        async with world.db.write() as session:
            held = await commit(
                session, vm.workspace_id, epoch=vm.epoch, generation=synced.generation, at_ms=synced.synced_at_ms
            )
        if not held:
            raise Problem("conflict", "The workspace has been given to another VM; this copy of it is not kept.")
    return synced


async def sync_if_up(world: World, workspace_id: str) -> None:
    """Bring a workspace up to date when a VM has it. What can't be synced now stays as it was last."""
    async with world.db.read() as session:
        workspace = await session.get(Workspace, workspace_id)
        held = workspace is not None and workspace.vm_id is not None
        vm = await session.get(Vm, workspace.vm_id) if held and workspace is not None else None
    if vm is None or not vm.active or not vm.started:
        return
    try:
        await sync(world, vm)
    except Problem as problem:
        log.info("workspace %s could not be synced first: %s", workspace_id, problem.message)
