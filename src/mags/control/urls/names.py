"""From a public name to a VM.

A name is `SUB` or `PORT-SUB`. SUB is a job's own subdomain, or an alias, which leads to the newest job of its
workspace, or to the sandbox of that name. The bare name goes to the job's first open port; any other has to be open. An
alias publishes port 8080 of a job that has no subdomain: none of its ports was opened or closed by anybody yet.
"""

from __future__ import annotations

import re

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.lifecycles.reaching import reach
from mags.control.lifecycles.world import World
from mags.control.models import Alias, Job, OpenPort, Vm
from mags.control.records.jobs import led_to, vm_of
from mags.control.records.urls import DEFAULT_PORT
from mags.hostclient import HostState
from mags.protocol.edge import Resolve, Resolved
from mags.protocol.errors import Problem
from mags.protocol.states import FINAL_JOB_STATUSES

STARTING_TTL = 0.5
_PORT = re.compile(r"([1-9][0-9]{0,4})-(.+)")


def split_name(name: str) -> tuple[int | None, str]:
    """Port (None for the bare name) and subdomain."""
    match = _PORT.fullmatch(name)
    if match is None or int(match[1]) > 65535:
        return None, name
    return int(match[1]), match[2]


async def resolve(world: World, wish: Resolve) -> Resolved:
    if wish.domain is not None and wish.domain != world.settings.apps_domain:
        return Resolved(status="unknown")
    port, subdomain = split_name(wish.name.lower())
    async with world.db.read() as session:
        job, aliased = await _job(session, subdomain)
        if job is None:
            return Resolved(status="unknown", subdomain=subdomain)
        vm = await vm_of(session, job)
        chosen = port or job.url_port or DEFAULT_PORT
        opened = await session.get(OpenPort, (job.id, chosen))
    if opened is None and not (aliased and port is None and job.subdomain is None):
        return Resolved(status="closed", subdomain=subdomain, port=chosen, job_id=job.id, name=job.name)
    return _answer(world, job, vm, opened, subdomain, chosen)


async def _job(session: AsyncSession, subdomain: str) -> tuple[Job | None, bool]:
    job = (await session.execute(select(Job).where(Job.subdomain == subdomain))).scalar_one_or_none()
    if job is not None:
        return job, False
    alias = (await session.execute(select(Alias).where(Alias.subdomain == subdomain))).scalar_one_or_none()
    if alias is None:
        return None, False
    return await led_to(session, alias.owner_id, alias.workspace), True


def _answer(world: World, job: Job, vm: Vm | None, opened: OpenPort | None, subdomain: str, port: int) -> Resolved:
    answer = Resolved(
        status="starting",
        subdomain=subdomain,
        port=port,
        job_id=job.id,
        name=job.name,
        owner=job.owner_id,
        private=opened.private if opened is not None else False,
        secret=opened.secret if opened is not None and opened.private else "",
        ttl_s=STARTING_TTL,
    )
    if vm is None or (not vm.active and job.status in FINAL_JOB_STATUSES):
        answer.status = "stopped"
        answer.ttl_s = 5.0
    elif vm.active and vm.started and vm.host_id is not None:
        if world.hosts.state(vm.host_id) is HostState.LOST:
            world.spawn(bring_back(world, job), f"bring-back-{job.id}")
        else:
            answer.status, answer.vm_id, answer.host_id, answer.ttl_s = "ok", vm.id, vm.host_id, 5.0
    return answer


async def bring_back(world: World, job: Job) -> None:
    """Somebody wants a VM whose host is lost: it comes up elsewhere, if it can."""
    try:
        await reach(world, job.owner_id, job.id)
    except Problem:
        pass
