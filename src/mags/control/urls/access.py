"""Opening a persistent job's VM to the world: a port under a public URL, or SSH."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from mags.control import errors
from mags.control.http import Json, Reference, TheWorld, Writer, with_warnings
from mags.control.lifecycles.addresses import public_url
from mags.control.lifecycles.world import World
from mags.control.models import Job
from mags.control.records import accounts, jobs, public_keys, urls
from mags.control.records.accounts import Caller
from mags.control.urls.schemas import AccessClosed, AccessRequest, SshAccess, UrlAccess
from mags.protocol import edge, messages
from mags.protocol.errors import Problem
from mags.protocol.states import FINAL_JOB_STATUSES

router = APIRouter(prefix="/mags-jobs", tags=["urls"])

SSH = 22
KEYS_KEPT = 100
"""Keys that one job's VM keeps; the oldest goes when another is made, and connections that came with it end."""
EDGE_TIMEOUT = 5.0


@router.post(
    "/{id}/access",
    response_model=UrlAccess | SshAccess,
    summary="Open a port: 22 for SSH, any other for a public URL",
)
async def open_access(world: TheWorld, caller: Writer, id: Reference, body: AccessRequest) -> Response:
    answer = await _ssh(world, caller, id, body.public_key) if body.port == SSH else await _url(world, caller, id, body)
    return Json(with_warnings(answer, body))


def _check(job: Job) -> None:
    if not job.persistent:
        raise Problem("conflict", f"{job.name!r} is not persistent, so nothing can lead to it; run it with persistent.")
    if job.status in FINAL_JOB_STATUSES:
        raise Problem("conflict", f"{job.name!r} is {job.status}; run it again first.")


async def _url(world: World, caller: Caller, reference: str, body: AccessRequest) -> dict[str, Any]:
    async with world.db.write() as session:
        job = await jobs.get(session, caller.user_id, reference)
        _check(job)
        row = await urls.open_port(session, job, body.port, body.private)
        names = await urls.names(session, job)
        aliases = await urls.leading_to(session, job)
    subdomain = job.subdomain or ""
    await world.tell_edges(subdomains=names)
    port = row.port if row.port != job.url_port else None
    url, *others = [public_url(world.settings, name, port=port) for name in (subdomain, *aliases)]
    answer = {"success": True, "url": url, "subdomain": subdomain, "port": row.port, "private": row.private}
    key = ""
    if row.private:
        value = edge.sign_link(row.secret, lifetime_s=world.settings.link_lifetime_s)
        key = f"/?{edge.LINK_PARAMETER}={value}"
        answer["signed_url"] = url + key
    return {**answer, "alias_urls": [other + key for other in others]}


@router.delete("/{id}/access", response_model=AccessClosed, summary="Close a port; 22: revoke the job's SSH keys")
async def close_access(
    world: TheWorld, caller: Writer, id: Reference, port: Annotated[int, Query(ge=1, le=65535)] = 8080
) -> Response:
    async with world.db.write() as session:
        job = await jobs.get(session, caller.user_id, id)
        if port == SSH:
            keys = await accounts.ssh_keys(session, caller.user_id, job_id=job.id)
            closed = bool(keys)
            await accounts.remove_ssh_keys(session, caller.user_id, [key.id for key in keys])
        else:
            closed = await urls.close_port(session, job, port)
        names = await urls.names(session, job)
    if not closed:
        raise errors.not_found("open port", str(port))
    vms = (job.vm_id,) if port == SSH and job.vm_id is not None else ()
    await world.tell_edges(subdomains=names, vms=vms)
    return Json({"success": True, "port": port})


async def _ssh(world: World, caller: Caller, reference: str, has: str | None) -> dict[str, Any]:
    """A key for the job's VM: the one that the caller `has`, or a new one, whose private half is in the answer and
    nowhere else. Only a key that was made here for this job counts: nobody can bring somebody else's."""
    settings = world.settings
    private: str | None = None
    async with world.db.write() as session:
        job = await jobs.get(session, caller.user_id, reference)
        _check(job)
        if has not in [key.public_key for key in await accounts.ssh_keys(session, caller.user_id, job_id=job.id)]:
            private = await _new_key(session, job)
        own = None
        if settings.ssh_port_first:
            own = await urls.ssh_port(session, job, settings.ssh_port_first, settings.ssh_port_count)
    info = await world.client.ask(
        edge.DESCRIBE, messages.Empty(), edge.EdgeInfo, timeout=EDGE_TIMEOUT, who="The SSH gateway"
    )
    if own is not None:
        wish = edge.Listen(port=own, job_id=job.id)
        await world.client.ask(edge.LISTEN, wish, messages.Done, timeout=EDGE_TIMEOUT, who="The SSH gateway")
    return {
        "success": True,
        "ssh_host": settings.ssh_host,
        "ssh_port": own if own is not None else settings.ssh_port,
        "ssh_user": "root",
        "ssh_private_key": private,
        "ssh_host_key": info.ssh_host_key,
    }


async def _new_key(session: AsyncSession, job: Job) -> str:
    """Its private half."""
    private, public = public_keys.new_pair()
    old = await accounts.ssh_keys(session, job.owner_id, job_id=job.id)
    await accounts.remove_ssh_keys(session, job.owner_id, [key.id for key in old[: max(0, len(old) - KEYS_KEPT + 1)]])
    await accounts.add_ssh_key(
        session,
        job.owner_id,
        name=job.name,
        public_key=public.line,
        fingerprint=public.fingerprint,
        job_id=job.id,
    )
    return private
