"""How much of something one user may keep."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.models import Alias, CronJob, File, SshKey, Token
from mags.protocol.errors import Problem

RETRY_AFTER_S = 60


async def check_room(
    session: AsyncSession,
    kind: type[Alias | CronJob | SshKey | Token],
    owner: str,
    limit: int,
    what: str,
    *where: ColumnElement[bool],
) -> None:
    """Problem(rate_limited) when the owner has `limit` of them already."""
    owned: Any = kind.owner_id == owner
    count = (await session.execute(select(func.count()).select_from(kind).where(owned, *where))).scalar_one()
    if count >= limit:
        words = f"You have {count} {what}, the most allowed; remove one."
        raise Problem("rate_limited", words, retry_after=RETRY_AFTER_S)


async def check_bytes(session: AsyncSession, owner: str, size: int, limit: int) -> None:
    """Problem(rate_limited) when all uploaded files together would be larger than `limit` with one of `size`."""
    kept = select(func.coalesce(func.sum(File.size), 0)).where(File.owner_id == owner)
    have = int((await session.execute(kept)).scalar_one())
    if have + size > limit:
        words = f"Your uploaded files have {have} bytes; with this one they would have more than {limit}. Remove some."
        raise Problem("rate_limited", words, retry_after=RETRY_AFTER_S, max_bytes=limit)
