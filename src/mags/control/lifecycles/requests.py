"""From records to the messages that hosts understand."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control.models import File, Job, Vm, Workspace
from mags.protocol.errors import Problem
from mags.protocol.messages import Adjust, Attachment, FileReference, Keep, Run, Script, Start, VmSpec

KEEPS: dict[str, Keep] = {"job": "job", "park": "park", "stay": "stay"}


async def start_request(session: AsyncSession, job: Job, vm: Vm) -> Start:
    """The same for the same records, as often as it is asked."""
    workspace = await session.get(Workspace, vm.workspace_id) if vm.workspace_id is not None else None
    return Start(
        vm_id=vm.id,
        spec=VmSpec(image=vm.image, vcpus=vm.vcpus, memory_mb=vm.memory_mb, disk_gb=vm.disk_gb),
        owner=vm.owner_id,
        script=Script(job_id=job.id) if vm.revive else await _script(session, job),
        keep=KEEPS[vm.keep],
        name=job.workspace or job.name,
        attachment=await _attachment(session, vm, workspace) if vm.attached else None,
        environment=vm.environment,
        startup_command=vm.startup_command,
        idle_timeout_s=vm.idle_timeout_s,
        no_sleep=vm.no_sleep,
        revive=vm.revive,
    )


async def run_request(session: AsyncSession, job: Job, vm: Vm) -> Run:
    run = Run(vm_id=vm.id, script=await _script(session, job))
    if job.persistent:
        run.keep = "stay"
        run.adjust = Adjust(
            vm_id=vm.id,
            idle_timeout_s=vm.idle_timeout_s,
            no_sleep=job.no_sleep or None,
            startup_command=job.startup_command,
        )
    return run


async def _script(session: AsyncSession, job: Job) -> Script:
    return Script(
        job_id=job.id,
        script=job.script,
        url=job.script_url,
        environment=job.environment,
        timeout_s=job.timeout_s,
        files=await _files(session, job.owner_id, job.file_ids) if job.file_ids else [],
    )


async def _files(session: AsyncSession, owner: str, ids: Sequence[str]) -> list[FileReference]:
    rows = (await session.execute(select(File).where(File.owner_id == owner, File.id.in_(ids)))).scalars()
    known = {row.id: row for row in rows}
    return [
        FileReference(file_id=row.id, name=row.name, size=row.size)
        for row in (known.get(file_id) for file_id in ids)
        if row is not None
    ]


async def _attachment(session: AsyncSession, vm: Vm, workspace: Workspace | None) -> Attachment:
    generation = workspace.generation if workspace is not None else 0
    base = await session.get(Workspace, vm.base_id) if vm.base_id is not None and generation == 0 else None
    if generation == 0 and vm.base_id is not None and (base is None or base.deleted_ms):
        raise Problem("not_found", "The workspace that this one starts from has been deleted.")
    return Attachment(
        workspace_id=workspace.id if workspace is not None else vm.id,
        epoch=vm.epoch,
        generation=generation,
        disk_gb=vm.disk_gb,
        base=base.id if base is not None else None,
        base_generation=base.generation if base is not None else 0,
        discard=vm.discard,
    )
