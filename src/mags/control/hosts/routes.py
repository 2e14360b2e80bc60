"""The addresses about the platform itself."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter
from sqlalchemy import text
from starlette.responses import Response

import mags
from mags.control.http import Json, Reader, TheWorld, View

router = APIRouter(tags=["platform"])

HEALTH_TIMEOUT = 5.0


class Health(View):
    status: Literal["ok", "degraded"]
    version: str
    database: Literal["ok", "away"]
    messages: Literal["ok", "away"]
    hosts: int


class HostView(View):
    host_id: str
    status: Literal["live", "suspect", "lost"]
    version: str
    accelerator: str
    cpus: int
    memory_mb: int
    free_memory_mb: int
    free_disk_gb: float
    load: float
    accepting: bool
    reason: str
    idle_vms: int
    busy_vms: int
    sleeping_vms: int
    parked_vms: int
    images: list[str]
    storage: str


class Pool(View):
    idle_vms: int
    busy_vms: int
    sleeping_vms: int
    parked_vms: int
    total_vms: int
    min_pool_size: int
    max_pool_size: int
    hosts: list[HostView]


@router.get("/health", response_model=Health, summary="Whether the server works (no token needed)")
async def health(world: TheWorld) -> Response:
    """200 when it can take jobs' records; `hosts` says whether somebody can run them."""
    parts = {"database": "ok", "messages": "ok" if world.connection.is_connected else "away"}
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT):
            async with world.db.read() as session:
                await session.execute(text("SELECT 1"))
    except Exception:
        parts["database"] = "away"
    good = all(state == "ok" for state in parts.values())
    return Json(
        {
            "status": "ok" if good else "degraded",
            "version": mags.__version__,
            **parts,
            "hosts": len(world.hosts.live()),
        },
        status_code=200 if good else 503,
        headers={} if good else {"Retry-After": "1"},
    )


@router.get("/mags-jobs/pool-status", response_model=Pool, summary="VMs that wait, work, sleep")
async def pool_status(world: TheWorld, caller: Reader) -> Response:
    views = world.hosts.all()
    live = {view.host_id for view in world.hosts.live()}
    sums = {
        name: sum(getattr(view.presence, name) for view in views if view.host_id in live)
        for name in ("idle_vms", "busy_vms", "sleeping_vms", "parked_vms", "min_pool_size", "max_pool_size")
    }
    return Json(
        {
            **sums,
            "total_vms": sum(sums[name] for name in ("idle_vms", "busy_vms", "sleeping_vms", "parked_vms")),
            "hosts": [
                {
                    "host_id": view.host_id,
                    "status": world.hosts.state(view.host_id).value,
                    "version": view.presence.version,
                    "accelerator": view.presence.accelerator,
                    "cpus": view.presence.cpus,
                    "memory_mb": view.presence.memory_mb,
                    "free_memory_mb": view.presence.free_memory_mb,
                    "free_disk_gb": view.presence.free_disk_gb,
                    "load": view.presence.load,
                    "accepting": view.presence.accepting,
                    "reason": view.presence.reason,
                    "idle_vms": view.presence.idle_vms,
                    "busy_vms": view.presence.busy_vms,
                    "sleeping_vms": view.presence.sleeping_vms,
                    "parked_vms": view.presence.parked_vms,
                    "images": view.presence.images,
                    "storage": view.presence.storage,
                }
                for view in views
            ],
        }
    )
