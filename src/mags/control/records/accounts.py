"""Users, tokens and SSH keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control import errors
from mags.control.db import now_ms
from mags.control.models import SshKey, Token, User
from mags.protocol.ids import new_id

SCOPES = ("read", "write", "tokens")
"""read: see; write: make, change, run; tokens: make and revoke tokens."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may."""

    user_id: str
    name: str
    scopes: frozenset[str] = frozenset(SCOPES)
    token_id: str = ""
    max_vms: int | None = None
    max_vcpus: int | None = None
    max_memory_mb: int | None = None
    expires_ms: int | None = None


def digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


async def by_token(session: AsyncSession, token_digest: str) -> Caller | None:
    """The user of a token that has not run out."""
    row = (
        await session.execute(
            select(User, Token).join(Token, Token.owner_id == User.id).where(Token.digest == token_digest)
        )
    ).one_or_none()
    if row is None:
        return None
    user, token = row
    if token.expires_ms is not None and token.expires_ms <= now_ms():
        return None
    return Caller(
        user.id,
        user.name,
        frozenset(token.scopes),
        token.id,
        user.max_vms,
        user.max_vcpus,
        user.max_memory_mb,
        token.expires_ms,
    )


async def caller_of(session: AsyncSession, owner: str) -> Caller:
    """A user as the platform acts for them, without a token. Problem(not_found) when there is no such user."""
    row = await session.get(User, owner)
    if row is None:
        raise errors.not_found("user", owner)
    return Caller(row.id, row.name, max_vms=row.max_vms, max_vcpus=row.max_vcpus, max_memory_mb=row.max_memory_mb)


async def touch_token(session: AsyncSession, token_id: str) -> None:
    await session.execute(update(Token).where(Token.id == token_id).values(last_used_ms=now_ms()))


async def user_by_name(session: AsyncSession, name: str) -> User | None:
    return (await session.execute(select(User).where(User.name == name))).scalar_one_or_none()


async def add_user(session: AsyncSession, name: str) -> str:
    """The new user's id. IntegrityError when the name is taken."""
    user_id = new_id()
    await session.execute(insert(User).values(id=user_id, name=name, created_ms=now_ms()))
    return user_id


async def add_token(
    session: AsyncSession,
    owner: str,
    token: str,
    *,
    name: str,
    scopes: Sequence[str] = SCOPES,
    expires_ms: int | None = None,
) -> Token:
    row = Token(
        id=new_id(),
        owner_id=owner,
        name=name,
        digest=digest(token),
        prefix=token[:10],
        scopes=list(scopes),
        created_ms=now_ms(),
        expires_ms=expires_ms,
        last_used_ms=None,
    )
    session.add(row)
    await session.flush()
    return row


async def tokens(session: AsyncSession, owner: str, *, offset: int, limit: int) -> tuple[Sequence[Token], int]:
    """The oldest first, with how many there are in all."""
    mine = Token.owner_id == owner
    total = (await session.execute(select(func.count()).select_from(Token).where(mine))).scalar_one()
    rows = await session.execute(
        select(Token).where(mine).order_by(Token.created_ms, Token.id).offset(offset).limit(limit)
    )
    return rows.scalars().all(), total


async def remove_token(session: AsyncSession, owner: str, token_id: str) -> str | None:
    """The digest of the token that is gone now; None when there was none."""
    found = (
        await session.execute(select(Token.digest).where(Token.owner_id == owner, Token.id == token_id))
    ).scalar_one_or_none()
    if found is not None:
        await session.execute(delete(Token).where(Token.id == token_id))
    return found


async def add_ssh_key(
    session: AsyncSession, owner: str, *, name: str, public_key: str, fingerprint: str, job_id: str | None = None
) -> SshKey:
    row = SshKey(
        id=new_id(),
        owner_id=owner,
        job_id=job_id,
        name=name,
        public_key=public_key,
        fingerprint=fingerprint,
        created_ms=now_ms(),
    )
    session.add(row)
    await session.flush()
    return row


async def ssh_keys(session: AsyncSession, owner: str, *, job_id: str | None = None) -> Sequence[SshKey]:
    """A job's keys, or with None the user's own."""
    where = SshKey.job_id == job_id if job_id is not None else SshKey.job_id.is_(None)
    return (
        await session.execute(
            select(SshKey).where(SshKey.owner_id == owner, where).order_by(SshKey.created_ms, SshKey.id)
        )
    ).scalars().all()  # fmt: skip


async def is_somebody_elses(session: AsyncSession, owner: str, fingerprint: str) -> bool:
    """Whether another user has the key: who comes with it must not land in a sandbox of the wrong one."""
    found = await session.execute(
        select(SshKey.id)
        .where(SshKey.fingerprint == fingerprint, SshKey.owner_id != owner, SshKey.job_id.is_(None))
        .limit(1)
    )
    return found.scalar_one_or_none() is not None


async def remove_ssh_keys(session: AsyncSession, owner: str, ids: Sequence[str]) -> int:
    found = (
        await session.execute(select(SshKey.id).where(SshKey.owner_id == owner, SshKey.id.in_(ids)))
    ).scalars().all()  # fmt: skip
    await session.execute(delete(SshKey).where(SshKey.id.in_(found)))
    return len(found)
