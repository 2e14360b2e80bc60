"""One answer for one Idempotency-Key.

The thing is made, and the answer kept, in one transaction: a crash leaves either both or nothing. Of two requests at
once with one key the second fails when it keeps its answer, is tried again, and is answered as the first was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.db import Database, now_ms
from mags.control.models import IdempotentRequest
from mags.protocol.errors import Problem

KEPT_MS = 24 * 3600 * 1000
MAX_KEY = 255


@dataclass(frozen=True, slots=True)
class Once:
    """A key and what it was used for."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Earlier:
    status: int
    body: dict[str, Any]


def once(key: str | None, *parts: bytes | str) -> Once | None:
    """None without a key. `parts` say what is asked: method, path, body."""
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY:
        raise Problem("invalid", f"Idempotency-Key: give 1 to {MAX_KEY} characters.")
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return Once(key, digest.hexdigest())


Make = Callable[[AsyncSession], Awaitable[Earlier]]


async def exactly_once(database: Database, owner: str, request: Once | None, make: Make) -> tuple[Earlier, bool]:
    """Run `make` in a transaction and keep its answer, or give the answer of before; True when it was made now."""
    for attempt in (1, 2):
        try:
            async with database.write() as session:
                earlier = await _replay(session, owner, request)
                if earlier is not None:
                    return earlier, False
                made = await make(session)
                await _keep(session, owner, request, made)
                return made, True
        except IntegrityError:
            if request is None or attempt == 2:
                raise
    raise AssertionError("unreachable")


async def answered(database: Database, owner: str, request: Once | None) -> Earlier | None:
    """The answer of before, for who would not like to read a large body for nothing."""
    async with database.write() as session:
        return await _replay(session, owner, request)


async def _replay(session: AsyncSession, owner: str, request: Once | None) -> Earlier | None:
    """The answer that was given before; conflict when the key was used for something else."""
    if request is None:
        return None
    row = (
        await session.execute(
            select(IdempotentRequest).where(IdempotentRequest.owner_id == owner, IdempotentRequest.key == request.key)
        )
    ).scalar_one_or_none()
    if row is None:
        return None
    if row.created_ms < now_ms() - KEPT_MS:
        await session.delete(row)
        await session.flush()
        return None
    if row.fingerprint != request.fingerprint:
        raise Problem("conflict", "This Idempotency-Key was used for another request; take a new one.")
    return Earlier(row.status, row.body)


async def _keep(session: AsyncSession, owner: str, request: Once | None, made: Earlier) -> None:
    if request is not None:
        await session.execute(
            insert(IdempotentRequest).values(
                owner_id=owner,
                key=request.key,
                fingerprint=request.fingerprint,
                status=made.status,
                body=made.body,
                created_ms=now_ms(),
            )
        )


async def forget_old(session: AsyncSession) -> None:
    await session.execute(delete(IdempotentRequest).where(IdempotentRequest.created_ms < now_ms() - KEPT_MS))
