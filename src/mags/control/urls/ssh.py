"""Whether an SSH key opens a sandbox: a key made for a job, or one of its owner's own."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.lifecycles.world import World
from mags.control.models import Job, SshKey, SshPort, Vm
from mags.control.records import jobs
from mags.control.records.public_keys import fingerprint
from mags.control.urls.names import bring_back
from mags.hostclient import HostState
from mags.protocol.edge import SshAuth, SshGrant
from mags.protocol.errors import Problem

_NO = Problem("forbidden", "This key does not open that sandbox.")


async def authorise(world: World, wish: SshAuth) -> SshGrant:
    """As `SshAuth` says: forbidden or not_found turn the client away, other problems are told to it."""
    async with world.db.read() as session:
        keys = await _keys(session, wish.public_key)
        job = await _job(session, keys, wish)
        if job is None:
            raise _NO
        vm = await jobs.vm_of(session, job)
    guest_user = wish.user.partition("+")[2] or "root"
    host_id = _host(world, job, vm)
    assert vm is not None
    return SshGrant(
        job_id=job.id, vm_id=vm.id, host_id=host_id, owner=job.owner_id, name=job.name, guest_user=guest_user
    )


def _host(world: World, job: Job, vm: Vm | None) -> str:
    if vm is None or (not vm.active and job.status not in jobs.OPEN):
        raise Problem("gone", f"{job.name!r} is {job.status}; start it again.")
    if not vm.active or not vm.started or vm.host_id is None:
        raise Problem("unavailable", f"{job.name!r} is just starting; connect again in a moment.")
    if world.hosts.state(vm.host_id) is HostState.LOST:
        world.spawn(bring_back(world, job), f"bring-back-{job.id}")
        raise Problem("unavailable", f"The host of {job.name!r} is away; connect again in a moment.")
    return vm.host_id


async def _keys(session: AsyncSession, public_key: str) -> Sequence[SshKey]:
    try:
        mark = fingerprint(public_key)
    except (ValueError, IndexError, binascii.Error):
        return []
    found = select(SshKey).where(SshKey.fingerprint == mark).order_by(SshKey.created_ms, SshKey.id)
    rows = (await session.execute(found)).scalars().all()
    blob = _blob(public_key)
    return [row for row in rows if _blob(row.public_key) == blob]


def _blob(line: str) -> bytes:
    return base64.b64decode(line.split()[1])


async def _job(session: AsyncSession, keys: Sequence[SshKey], wish: SshAuth) -> Job | None:
    if wish.port is not None:
        return await _by_port(session, keys, wish.port)
    name = wish.user.partition("+")[0]
    for key in keys:
        if name == "root" and key.job_id is not None:
            return await jobs.find(session, key.owner_id, key.job_id)
        job = await jobs.find(session, key.owner_id, name)
        if job is not None and job.persistent and key.job_id in (None, job.id):
            return job
    return None


async def _by_port(session: AsyncSession, keys: Sequence[SshKey], port: int) -> Job | None:
    row = await session.get(SshPort, port)
    for key in keys:
        if row is not None and key.owner_id == row.owner_id and key.job_id in (None, row.job_id):
            return await jobs.find(session, row.owner_id, row.job_id)
    return None
