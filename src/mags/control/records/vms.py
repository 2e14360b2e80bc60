"""VMs: how many somebody has, how much is reserved where."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import String, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.models import Job, Vm
from mags.protocol.states import JobStatus, VmState


@dataclass(frozen=True, slots=True)
class Footprint:
    vms: int
    pending: int


_OWNER = bindparam("owner", type_=String)
_FOOTPRINT = select(
    select(func.count()).select_from(Vm).where(Vm.owner_id == _OWNER, Vm.active.is_(True)).scalar_subquery(),
    select(func.count())
    .select_from(Job)
    .where(Job.owner_id == _OWNER, Job.status == JobStatus.PENDING)
    .scalar_subquery(),
)


async def footprint(session: AsyncSession, owner: str) -> Footprint:
    """What an owner has now: VMs that exist or are about to, and jobs that wait."""
    row = (await session.execute(_FOOTPRINT, {"owner": owner})).one()
    return Footprint(row[0], row[1])


async def active_ids(session: AsyncSession, owner: str) -> list[str]:
    """An owner's VMs that exist or are about to."""
    return list((await session.execute(select(Vm.id).where(Vm.owner_id == owner, Vm.active.is_(True)))).scalars())


async def reserved(session: AsyncSession) -> dict[str, int]:
    """MB of memory by host that active VMs may use; a sleeping one uses none. Of all owners: placement looks at hosts,
    not at people."""
    rows = await session.execute(
        select(Vm.host_id, func.sum(Vm.memory_mb))
        .where(Vm.active.is_(True), Vm.host_id.is_not(None), Vm.state != VmState.SLEEPING)
        .group_by(Vm.host_id)
    )
    return {str(row[0]): int(row[1]) for row in rows}
