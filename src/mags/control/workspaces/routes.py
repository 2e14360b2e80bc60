"""The addresses of workspaces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from mags.control import errors
from mags.control.db import now_ms
from mags.control.http import Body, Json, Reader, Reference, TheWorld, View, WarningView, Writer, with_warnings
from mags.control.http.context import IdempotencyKey
from mags.control.http.paging import LONGEST_PAGE, Page, PageSize
from mags.control.http.times import moment
from mags.control.lifecycles.release import release
from mags.control.lifecycles.removal import removed_ms
from mags.control.lifecycles.world import World
from mags.control.models import Job, Vm, Workspace
from mags.control.records import jobs, workspaces
from mags.control.records.idempotency import answered, once
from mags.control.workspaces import archives
from mags.hostclient import HostState
from mags.protocol.errors import Problem
from mags.protocol.messages import Done, Resize, Stop
from mags.protocol.states import VmState

router = APIRouter(prefix="/mags-workspaces", tags=["workspaces"])


class ResizeRequest(Body):
    disk_gb: int = Field(ge=1, le=100)


class WorkspaceView(WarningView):
    workspace_id: str
    created_at: str
    last_used_at: str
    last_synced_at: str | None
    size_bytes: int
    disk_gb: int
    image: str | None
    base_workspace_id: str | None
    synced: bool
    job: str | None
    removed_at: str | None


class WorkspaceList(View):
    workspaces: list[WorkspaceView]
    total: int
    page: int
    page_size: int


class Removed(View):
    success: bool
    workspace_id: str


def _view(workspace: Workspace, job: str | None, removed_ms: int | None = None) -> dict[str, Any]:
    """`removed_ms`: when its VM goes, with its files (lifecycles.removal)."""
    return {
        "workspace_id": workspace.name,
        "created_at": moment(workspace.created_ms),
        "last_used_at": moment(workspace.used_ms),
        "last_synced_at": moment(workspace.synced_ms),
        "size_bytes": workspace.size_bytes,
        "disk_gb": workspace.disk_gb,
        "image": workspace.image,
        "base_workspace_id": workspace.base_name,
        "synced": workspace.synced,
        "job": job,
        "removed_at": moment(removed_ms),
    }


async def _jobs_of(session: AsyncSession, owner: str, rows: Sequence[Workspace]) -> dict[str, str]:
    """The open job that uses each workspace's VM, by VM."""
    vms = [row.vm_id for row in rows if row.vm_id is not None]
    found = await session.execute(
        select(Job.vm_id, Job.id)
        .where(Job.owner_id == owner, Job.vm_id.in_(vms), Job.status.in_(jobs.OPEN))
        .order_by(Job.persistent, Job.created_ms)
    )
    return {str(vm_id): job_id for vm_id, job_id in found}


async def _views(world: World, session: AsyncSession, owner: str, rows: Sequence[Workspace]) -> list[dict[str, Any]]:
    using = await _jobs_of(session, owner, rows)
    ids = [row.vm_id for row in rows if row.vm_id is not None]
    vms = {vm.id: vm for vm in await session.scalars(select(Vm).where(Vm.owner_id == owner, Vm.id.in_(ids)))}
    return [_view(row, using.get(row.vm_id or ""), removed_ms(world, vms.get(row.vm_id or ""))) for row in rows]


@router.get("", response_model=WorkspaceList, summary="List workspaces, the last used first")
async def list_workspaces(
    world: TheWorld, caller: Reader, page: Page = 1, page_size: PageSize = LONGEST_PAGE
) -> Response:
    async with world.db.read() as session:
        offset = (page - 1) * page_size
        rows, total = await workspaces.page(session, caller.user_id, offset=offset, limit=page_size)
        views = await _views(world, session, caller.user_id, rows)
    return Json({"workspaces": views, "total": total, "page": page, "page_size": page_size})


@router.get("/{id}", response_model=WorkspaceView, summary="One workspace")
async def one(world: TheWorld, caller: Reader, id: Reference) -> Response:
    async with world.db.read() as session:
        row = await workspaces.get(session, caller.user_id, id)
        (view,) = await _views(world, session, caller.user_id, [row])
    return Json(view)


@router.delete("/{id}", response_model=Removed, summary="Delete a workspace and its data")
async def remove(world: TheWorld, caller: Writer, id: Reference) -> Response:
    """409 while a job uses it. A VM that is only parked with it is ended first."""
    async with world.db.read() as session:
        row = await workspaces.get(session, caller.user_id, id)
        vm = await session.get(Vm, row.vm_id) if row.vm_id is not None else None
        users = await jobs.open_on_vm(session, caller.user_id, row.vm_id) if row.vm_id is not None else []
    if users:
        raise Problem("conflict", f"Workspace {id!r} is in use by {users[0].name!r}; stop it first.", job=users[0].id)
    if vm is not None and vm.active:
        await _unpark(world, vm)
    async with world.db.write() as session:
        row = await workspaces.get(session, caller.user_id, id)
        if row.vm_id is not None:
            raise Problem("conflict", f"Workspace {id!r} has just been taken into use; stop that job first.")
        row.deleted_ms = now_ms()
        row.epoch += 1
    world.kick.set()
    return Json({"success": True, "workspace_id": id})


async def _unpark(world: World, vm: Vm) -> None:
    if vm.host_id is not None and world.hosts.state(vm.host_id) is not HostState.LOST:
        try:
            await world.client.request(
                vm.host_id, "stop", Stop(vm_id=vm.id), Done, timeout=world.settings.stop_timeout_s
            )
        except Problem as problem:
            if problem.code not in ("not_found", "gone"):
                raise
    await release(world, vm.id, state=VmState.GONE, reason="Its workspace was deleted.")


@router.get(
    "/{id}/export",
    summary="All files of a workspace as a tar archive",
    response_class=Response,
    responses={200: {"content": {archives.TAR: {}}}},
)
async def export(world: TheWorld, caller: Reader, id: Reference) -> Response:
    return await archives.export(world, caller, id)


@router.post(
    "/{id}/import",
    status_code=201,
    response_model=WorkspaceView,
    summary="A new workspace from such an archive",
    openapi_extra={"requestBody": {"content": {archives.TAR: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def bring(
    request: Request,
    world: TheWorld,
    caller: Writer,
    id: Reference,
    disk_gb: Annotated[int | None, Query(ge=1, le=100)] = None,
    key: IdempotencyKey = None,
) -> Response:
    """An Idempotency-Key stands for the name and the size: an archive is too large to be compared with another."""
    request_once = once(key, "POST import", id, str(disk_gb))
    answer = await answered(world.db, caller.user_id, request_once)
    if answer is not None:
        async for _ in request.stream():  # an answer before the end may never reach its sender
            pass
    else:
        view = partial(_view, job=None)
        answer = await archives.bring(world, caller, id, request.stream(), request_once, disk_gb=disk_gb, view=view)
    return Json(answer.body, status_code=answer.status)


@router.post("/{id}/resize", response_model=WorkspaceView, summary="Grow a workspace's disk")
async def resize(world: TheWorld, caller: Writer, id: Reference, body: ResizeRequest) -> Response:
    """At once when a VM is up with it; else from its next start on. Files are kept."""
    async with world.db.read() as session:
        row = await workspaces.get(session, caller.user_id, id)
        vm = await session.get(Vm, row.vm_id) if row.vm_id is not None else None
    if body.disk_gb < row.disk_gb:
        raise errors.invalid("disk_gb", f"It has {row.disk_gb} GB and can only grow.")
    if vm is not None and vm.active and vm.started and vm.host_id is not None and body.disk_gb > row.disk_gb:
        await world.client.request(vm.host_id, "resize", Resize(vm_id=vm.id, disk_gb=body.disk_gb), Done, timeout=120)
    async with world.db.write() as session:
        row = await workspaces.get(session, caller.user_id, id)
        row.disk_gb = max(row.disk_gb, body.disk_gb)
        held = await session.get(Vm, row.vm_id) if row.vm_id is not None else None
        if held is not None:
            held.disk_gb = row.disk_gb
        (view,) = await _views(world, session, caller.user_id, [row])
    return Json(with_warnings(view, body))
