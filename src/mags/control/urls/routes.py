"""The addresses of aliases: stable names that follow a workspace to its newest VM."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from mags.control import errors
from mags.control.config import Settings
from mags.control.http import Json, Reader, Reference, TheWorld, Writer, the_once, with_warnings
from mags.control.http.times import moment
from mags.control.lifecycles.addresses import public_url
from mags.control.models import Alias
from mags.control.records import urls
from mags.control.records.idempotency import Earlier, Once, exactly_once
from mags.control.records.limits import check_room
from mags.control.urls.schemas import AliasList, AliasRemoved, AliasRequest, AliasView
from mags.protocol.errors import Problem

router = APIRouter(prefix="/mags-url-aliases", tags=["urls"])


def _view(alias: Alias, settings: Settings) -> dict[str, Any]:
    return {
        "id": alias.id,
        "subdomain": alias.subdomain,
        "url": public_url(settings, alias.subdomain),
        "workspace_id": alias.workspace,
        "created_at": moment(alias.created_ms),
    }


def _taken(subdomain: str) -> Problem:
    return Problem("conflict", f"The name {subdomain!r} is taken; choose another one.")


@router.post("", status_code=201, response_model=AliasView, summary="Give a workspace a stable name")
async def create(
    world: TheWorld, caller: Writer, body: AliasRequest, once: Annotated[Once | None, Depends(the_once)]
) -> Response:
    settings = world.settings

    async def make(session: AsyncSession) -> Earlier:
        if await urls.taken(session, body.subdomain):
            raise _taken(body.subdomain)
        await check_room(session, Alias, caller.user_id, settings.max_records, "aliases")
        alias = await urls.add_alias(session, caller.user_id, body.subdomain, body.workspace_id)
        view = with_warnings(_view(alias, settings), body)
        if body.domain not in (None, settings.apps_domain):
            words = f"This server's names end in {settings.apps_domain!r}; the field 'domain' was ignored."
            view["warnings"] = [*view.get("warnings", []), words]
        return Earlier(201, view)

    try:
        answer, made = await exactly_once(world.db, caller.user_id, once, make)
    except IntegrityError:
        raise _taken(body.subdomain) from None
    if made:
        await world.tell_edges(subdomains=(body.subdomain,))
    return Json(answer.body, status_code=answer.status)


@router.get("", response_model=AliasList, summary="List aliases")
async def list_aliases(world: TheWorld, caller: Reader) -> Response:
    async with world.db.read() as session:
        rows = await urls.aliases(session, caller.user_id)
    return Json({"aliases": [_view(row, world.settings) for row in rows], "total": len(rows)})


@router.delete("/{subdomain}", response_model=AliasRemoved, summary="Remove an alias")
async def remove(world: TheWorld, caller: Writer, subdomain: Reference) -> Response:
    async with world.db.write() as session:
        if not await urls.remove_alias(session, caller.user_id, subdomain.lower()):
            raise errors.not_found("alias", subdomain)
    await world.tell_edges(subdomains=(subdomain.lower(),))
    return Json({"success": True, "subdomain": subdomain.lower()})
