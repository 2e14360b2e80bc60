"""The addresses of one's account."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from mags.control import errors
from mags.control.accounts.schemas import (
    Me,
    NewToken,
    Removed,
    SshKeyList,
    SshKeyRequest,
    SshKeyView,
    TokenList,
    TokenRequest,
)
from mags.control.db import now_ms
from mags.control.http import Json, Keeper, Reader, Reference, TheWorld, Writer, the_once, with_warnings
from mags.control.http.callers import authenticator
from mags.control.http.paging import LONGEST_PAGE, Page, PageSize
from mags.control.http.times import moment
from mags.control.models import SshKey, Token
from mags.control.records import accounts, public_keys
from mags.control.records.accounts import Caller
from mags.control.records.idempotency import Earlier, Once, exactly_once
from mags.control.records.limits import check_room
from mags.control.records.vms import active_ids, footprint
from mags.kit.clock import from_iso
from mags.protocol.errors import Problem

router = APIRouter(tags=["account"])

PREFIX = "mags_"


@router.get("/me", response_model=Me, summary="Who the token belongs to")
async def me(world: TheWorld, caller: Reader) -> Response:
    async with world.db.read() as session:
        have = await footprint(session, caller.user_id)
    settings = world.settings
    return Json(
        {
            "user_id": caller.user_id,
            "name": caller.name,
            "scopes": sorted(caller.scopes),
            "max_vms": caller.max_vms or settings.max_vms,
            "max_vcpus": caller.max_vcpus or settings.max_vcpus,
            "max_memory_mb": caller.max_memory_mb or settings.max_memory_mb,
            "vms": have.vms,
        }
    )


def _token_view(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "prefix": token.prefix,
        "scopes": list(token.scopes),
        "created_at": moment(token.created_ms),
        "expires_at": moment(token.expires_ms),
        "last_used_at": moment(token.last_used_ms),
    }


@router.get("/tokens", response_model=TokenList, summary="List tokens, the oldest first")
async def list_tokens(world: TheWorld, caller: Reader, page: Page = 1, page_size: PageSize = LONGEST_PAGE) -> Response:
    async with world.db.read() as session:
        rows, total = await accounts.tokens(session, caller.user_id, offset=(page - 1) * page_size, limit=page_size)
    return Json({"tokens": [_token_view(row) for row in rows], "total": total, "page": page, "page_size": page_size})


@router.post("/tokens", status_code=201, response_model=NewToken, summary="Make a token; it is shown only this once")
async def add_token(
    world: TheWorld, caller: Keeper, body: TokenRequest, once: Annotated[Once | None, Depends(the_once)]
) -> Response:
    scopes = accounts.SCOPES if body.scopes is None else tuple(dict.fromkeys(body.scopes))
    expires_ms = _end(caller, body.expires_at)
    for scope in scopes:
        if scope not in caller.scopes:
            raise errors.invalid("scopes", f"Your own token lacks {scope!r}, so it can't give it away.")
    secret = PREFIX + secrets.token_urlsafe(32)

    async def make(session: AsyncSession) -> Earlier:
        await check_room(session, Token, caller.user_id, world.settings.max_records, "tokens")
        row = await accounts.add_token(
            session, caller.user_id, secret, name=body.name, scopes=scopes, expires_ms=expires_ms
        )
        return Earlier(201, with_warnings(_token_view(row), body))

    answer, made = await exactly_once(world.db, caller.user_id, once, make)
    # The secret is not kept, so the answer to a repeated request can't have it.
    return Json({**answer.body, "token": secret if made else None}, status_code=answer.status)


def _end(caller: Caller, wish: str | None) -> int | None:
    """When a new token runs out: never after the one that makes it."""
    if wish is None:
        return caller.expires_ms
    expires_ms = int(from_iso(wish).timestamp() * 1000)
    if expires_ms <= now_ms():
        raise errors.invalid("expires_at", "It is in the past.")
    if caller.expires_ms is not None and expires_ms > caller.expires_ms:
        raise errors.invalid(
            "expires_at", f"Your own token runs out at {moment(caller.expires_ms)}; give no later time."
        )
    return expires_ms


@router.delete("/tokens/{id}", response_model=Removed, summary="Revoke a token")
async def remove_token(request: Request, world: TheWorld, caller: Keeper, id: Reference) -> Response:
    async with world.db.write() as session:
        digest = await accounts.remove_token(session, caller.user_id, id)
    if digest is None:
        raise errors.not_found("token", id)
    authenticator(request).forget(digest)
    return Json({"success": True, "id": id})


def _key_view(key: SshKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "fingerprint": key.fingerprint,
        "public_key": key.public_key,
        "created_at": moment(key.created_ms),
    }


@router.get("/ssh-keys", response_model=SshKeyList, summary="List your own SSH keys")
async def list_keys(world: TheWorld, caller: Reader) -> Response:
    async with world.db.read() as session:
        rows = await accounts.ssh_keys(session, caller.user_id)
    return Json({"ssh_keys": [_key_view(row) for row in rows], "total": len(rows)})


@router.post("/ssh-keys", status_code=201, response_model=SshKeyView, summary="Let an SSH key open all your sandboxes")
async def add_key(
    world: TheWorld, caller: Writer, body: SshKeyRequest, once: Annotated[Once | None, Depends(the_once)]
) -> Response:
    key = public_keys.parse(body.public_key)

    async def make(session: AsyncSession) -> Earlier:
        for row in await accounts.ssh_keys(session, caller.user_id):
            if row.fingerprint == key.fingerprint:
                return Earlier(201, with_warnings(_key_view(row), body))
        if await accounts.is_somebody_elses(session, caller.user_id, key.fingerprint):
            raise Problem("conflict", "Another user has this SSH key already; make one of your own (ssh-keygen).")
        await check_room(
            session, SshKey, caller.user_id, world.settings.max_records, "SSH keys", SshKey.job_id.is_(None)
        )
        row = await accounts.add_ssh_key(
            session,
            caller.user_id,
            name=body.name or key.comment[:100] or "key",
            public_key=key.line,
            fingerprint=key.fingerprint,
        )
        return Earlier(201, with_warnings(_key_view(row), body))

    answer, _ = await exactly_once(world.db, caller.user_id, once, make)
    return Json(answer.body, status_code=answer.status)


@router.delete("/ssh-keys/{id}", response_model=Removed, summary="Remove an SSH key")
async def remove_key(world: TheWorld, caller: Writer, id: Reference) -> Response:
    async with world.db.write() as session:
        if not await accounts.remove_ssh_keys(session, caller.user_id, [id]):
            raise errors.not_found("SSH key", id)
        vms = await active_ids(session, caller.user_id)
    await world.tell_edges(vms=vms)
    return Json({"success": True, "id": id})
