"""Rows that a transaction decides on, held until its end: nobody else changes them between our look and our commit.

SQLite has one writer at a time, so there is nothing to hold. On PostgreSQL others wait for the row, and see then what
has become of it. VMs are held before jobs, so that two transactions never wait for each other.
"""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.models import Base

T = TypeVar("T", bound=Base)


async def hold(session: AsyncSession, kind: type[T], key: str) -> T | None:
    """The row with this key, as it is now; None when there is none."""
    if session.get_bind().dialect.name == "sqlite":
        return await session.get(kind, key)
    await session.flush()  # what we have changed ourselves is part of how it is
    return await session.get(kind, key, with_for_update=True, populate_existing=True)


async def lock(session: AsyncSession, kind: type[Base], key: str) -> None:
    """Hold a row that is not looked at."""
    if session.get_bind().dialect.name != "sqlite":
        await hold(session, kind, key)
