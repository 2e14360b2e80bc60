"""Open ports, aliases, SSH ports."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.db import now_ms
from mags.control.models import Alias, Job, OpenPort, SshPort
from mags.control.records.jobs import led_to
from mags.protocol.ids import new_id, new_label

DEFAULT_PORT = 8080
"""What an alias publishes of a job none of whose ports was ever opened or closed: one without a subdomain."""


async def open_ports(session: AsyncSession, owner: str, job_id: str) -> Sequence[OpenPort]:
    return (
        await session.execute(
            select(OpenPort).where(OpenPort.owner_id == owner, OpenPort.job_id == job_id).order_by(OpenPort.created_ms)
        )
    ).scalars().all()  # fmt: skip


async def open_port(session: AsyncSession, job: Job, port: int, private: bool | None) -> OpenPort:
    """Open it, or change whether it is private (None leaves that). The job has a subdomain from now on."""
    if job.subdomain is None:
        job.subdomain = new_label()
    row = await session.get(OpenPort, (job.id, port))
    if row is None:
        row = OpenPort(
            job_id=job.id,
            port=port,
            owner_id=job.owner_id,
            private=bool(private),
            secret=new_label(32),
            created_ms=now_ms(),
        )
        session.add(row)
    elif private is not None and row.private != private:
        row.private, row.secret = private, new_label(32)
    if job.url_port is None:
        job.url_port = port
    await session.flush()
    return row


async def close_port(session: AsyncSession, job: Job, port: int) -> bool:
    """False when it was not open. The bare subdomain then leads to the oldest port that is left."""
    row = await session.get(OpenPort, (job.id, port))
    if row is None:
        if job.subdomain is not None or port != DEFAULT_PORT or not await leading_to(session, job):
            return False
        job.subdomain = new_label()  # its aliases publish only what is open from now on
        return True
    await session.delete(row)
    await session.flush()
    if job.url_port == port:
        left = await open_ports(session, job.owner_id, job.id)
        job.url_port = left[0].port if left else None
    return True


async def ssh_port(session: AsyncSession, job: Job, first: int, count: int) -> int | None:
    """The job's own port of the gateway, taken now if it has none; None when all are taken."""
    held = (await session.execute(select(SshPort).where(SshPort.job_id == job.id))).scalar_one_or_none()
    if held is not None:
        return held.port
    taken = set((await session.execute(select(SshPort.port))).scalars())
    port = next((port for port in range(first, min(first + count, 65536)) if port not in taken), None)
    if port is not None:
        session.add(SshPort(port=port, job_id=job.id, owner_id=job.owner_id))
        await session.flush()
    return port


async def aliases(session: AsyncSession, owner: str) -> Sequence[Alias]:
    return (
        await session.execute(select(Alias).where(Alias.owner_id == owner).order_by(Alias.created_ms, Alias.id))
    ).scalars().all()  # fmt: skip


async def names(session: AsyncSession, job: Job) -> list[str]:
    """What may lead to a job's VM: its subdomain, and the aliases of its workspace or name."""
    found = select(Alias.subdomain).where(Alias.owner_id == job.owner_id, Alias.workspace.in_(_places(job)))
    own = [job.subdomain] if job.subdomain is not None else []
    return [*own, *(await session.execute(found)).scalars()]


async def leading_to(session: AsyncSession, job: Job) -> list[str]:
    """The aliases that lead to a job now."""
    places = set()
    for place in _places(job):
        target = await led_to(session, job.owner_id, place)
        if target is not None and target.id == job.id:
            places.add(place)
    return [alias.subdomain for alias in await aliases(session, job.owner_id) if alias.workspace in places]


def _places(job: Job) -> set[str]:
    return {job.workspace or job.name, job.name}


async def taken(session: AsyncSession, subdomain: str) -> bool:
    """Whether anybody has it, as an alias or as a job's own."""
    alias = await session.execute(select(Alias.id).where(Alias.subdomain == subdomain))
    if alias.scalar_one_or_none() is not None:
        return True
    return (await session.execute(select(Job.id).where(Job.subdomain == subdomain))).scalar_one_or_none() is not None


async def add_alias(session: AsyncSession, owner: str, subdomain: str, workspace: str) -> Alias:
    row = Alias(id=new_id(), owner_id=owner, subdomain=subdomain, workspace=workspace, created_ms=now_ms())
    session.add(row)
    await session.flush()
    return row


async def remove_alias(session: AsyncSession, owner: str, subdomain: str) -> bool:
    found = await session.execute(delete(Alias).where(Alias.owner_id == owner, Alias.subdomain == subdomain))
    return bool(found.rowcount)  # type: ignore[attr-defined]
