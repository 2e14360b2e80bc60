"""Workspaces of one owner."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control import errors
from mags.control.db import now_ms
from mags.control.models import Workspace
from mags.protocol.ids import new_id


async def find(session: AsyncSession, owner: str, name: str) -> Workspace | None:
    return (
        await session.execute(
            select(Workspace).where(Workspace.owner_id == owner, Workspace.name == name, Workspace.deleted_ms == 0)
        )
    ).scalar_one_or_none()


async def get(session: AsyncSession, owner: str, name: str) -> Workspace:
    workspace = await find(session, owner, name)
    if workspace is None:
        raise errors.not_found("workspace", name)
    return workspace


async def find_or_add(
    session: AsyncSession,
    owner: str,
    name: str,
    *,
    synced: bool,
    disk_gb: int,
    base: Workspace | None,
) -> tuple[Workspace, bool]:
    """The workspace of that name, and whether it is new."""
    found = await find(session, owner, name)
    if found is not None:
        return found, False
    moment = now_ms()
    row = Workspace(
        id=new_id(),
        owner_id=owner,
        name=name,
        synced=synced,
        vm_id=None,
        epoch=0,
        generation=0,
        disk_gb=disk_gb,
        image=None,
        base_id=base.id if base is not None else None,
        base_name=base.name if base is not None else None,
        size_bytes=0,
        created_ms=moment,
        used_ms=moment,
        synced_ms=None,
        deleted_ms=0,
    )
    try:
        async with session.begin_nested():
            session.add(row)
            await session.flush()
    except IntegrityError:  # another control was quicker
        return await get(session, owner, name), False
    return row, True


async def add(
    session: AsyncSession,
    owner: str,
    name: str,
    *,
    workspace_id: str,
    generation: int,
    disk_gb: int,
    size_bytes: int,
    synced_ms: int | None,
    image: str | None = None,
    epoch: int = 0,
) -> Workspace:
    """One whose data is in the store already. IntegrityError when the name is taken."""
    moment = now_ms()
    row = Workspace(
        id=workspace_id,
        owner_id=owner,
        name=name,
        synced=True,
        vm_id=None,
        epoch=epoch,
        generation=generation,
        disk_gb=disk_gb,
        image=image,
        base_id=None,
        base_name=None,
        size_bytes=size_bytes,
        created_ms=moment,
        used_ms=moment,
        synced_ms=synced_ms,
        deleted_ms=0,
    )
    session.add(row)
    await session.flush()
    return row


async def page(session: AsyncSession, owner: str, *, offset: int, limit: int) -> tuple[Sequence[Workspace], int]:
    """Synced ones, and local ones while a VM has them; newest use first, with how many there are in all."""
    where = (
        Workspace.owner_id == owner,
        Workspace.deleted_ms == 0,
        Workspace.synced.is_(True) | Workspace.vm_id.is_not(None),
    )
    total = (await session.execute(select(func.count()).select_from(Workspace).where(*where))).scalar_one()
    rows = await session.execute(
        select(Workspace).where(*where).order_by(Workspace.used_ms.desc(), Workspace.id).offset(offset).limit(limit)
    )
    return rows.scalars().all(), total
