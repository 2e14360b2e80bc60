"""Recording a wished job, in the caller's transaction: quota, workspace, VM, placement, job.

A run of a workspace that a VM has already joins that VM. Otherwise a VM is recorded too, and the workspace is given to
it by compare-and-swap, so that of two submissions at once one makes the VM and the other joins it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sqlalchemy import Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mags.control import errors
from mags.control.db import now_ms
from mags.control.lifecycles.candidates import place, storage_trouble
from mags.control.lifecycles.wishes import JobWish
from mags.control.lifecycles.world import World
from mags.control.models import File, Job, OpenPort, Vm, Workspace
from mags.control.placement import Need
from mags.control.records import workspaces
from mags.control.records.accounts import Caller
from mags.control.records.vms import footprint
from mags.protocol.errors import Problem
from mags.protocol.ids import made_up_name, new_id, new_label
from mags.protocol.states import JobStatus, VmState

LEASE_MS = 5_000
"""How long a control that works on a job's step keeps others from it; it renews the lease while it works."""
DEFAULT_DISK_GB = 2

_VMS = cast(Table, Vm.__table__)
_ADD_VM, _ADD_JOB = insert(_VMS), insert(cast(Table, Job.__table__))
"""On the way of every job, so made once and not by way of the session's bookkeeping."""


@dataclass(frozen=True, slots=True)
class Submitted:
    job_id: str
    name: str
    recorded: tuple[Job, Vm] | None = None
    """The records, when the job has a VM of its own."""


async def submit(world: World, session: AsyncSession, caller: Caller, wish: JobWish) -> Submitted:
    """Record it. Problem when it may not be; nothing is kept then. Follow with `launch.launch` after the commit."""
    _check_size(world, caller, wish)
    have = await footprint(session, caller.user_id)
    if have.pending >= world.settings.max_pending:
        raise Problem("rate_limited", f"{have.pending} of your jobs are waiting already; try again.", retry_after=5)
    await _check_files(session, caller, wish)
    synced = (wish.workspace is not None and not wish.no_sync) or wish.base_workspace is not None
    base = await _base(session, caller, wish)
    workspace: Workspace | None = None
    if wish.workspace is not None:
        workspace, _ = await workspaces.find_or_add(
            session,
            caller.user_id,
            wish.workspace,
            synced=False,
            disk_gb=wish.disk_gb or (base.disk_gb if base is not None else DEFAULT_DISK_GB),
            base=base,
        )
        workspace.used_ms = now_ms()
    image = _image(world, wish, workspace, base)
    if workspace is not None:
        vm_id = await _join(session, workspace, wish)
        if vm_id is not None:
            return await _record_job(session, caller, wish, vm_id, new_id())
    max_vms = caller.max_vms or world.settings.max_vms
    if have.vms >= max_vms:
        raise Problem("rate_limited", f"You have {have.vms} VMs, the most allowed; stop one.", retry_after=10)
    if synced and (trouble := storage_trouble(world)) is not None:
        raise errors.no_storage(trouble)
    choice = await place(world, session, Need(memory_mb=wish.memory_mb, image=image, storage=synced))
    if choice.host_id is None and choice.hopeless:
        raise errors.no_capacity(choice.reason)
    job_id = new_id()
    host_id = choice.host_id
    vm = new_vm(caller.user_id, wish, workspace, base, image=image, synced=synced, host_id=host_id, starter=job_id)
    if workspace is None:
        await session.execute(_ADD_VM, {column.key: getattr(vm, column.key) for column in _VMS.columns})
        return await _record_job(session, caller, wish, vm.id, job_id, vm)
    session.add(vm)
    await session.flush()
    if not await attach(session, workspace, vm):
        # Another control gave it to its own VM between our look and now: this one is not needed.
        await session.delete(vm)
        await session.refresh(workspace)
        if workspace.vm_id is None:
            raise Problem("unavailable", f"Workspace {workspace.name!r} is just being handed over; try again.")
        return await _record_job(session, caller, wish, workspace.vm_id, job_id)
    return await _record_job(session, caller, wish, vm.id, job_id, vm)


def _check_size(world: World, caller: Caller, wish: JobWish) -> None:
    settings = world.settings
    max_vcpus = caller.max_vcpus or settings.max_vcpus
    if wish.vcpus > max_vcpus:
        raise errors.invalid("vcpus", f"At most {max_vcpus} are allowed for you.")
    max_memory = caller.max_memory_mb or settings.max_memory_mb
    if wish.memory_mb > max_memory:
        raise errors.invalid("memory_mb", f"At most {max_memory} are allowed for you.")


async def _check_files(session: AsyncSession, caller: Caller, wish: JobWish) -> None:
    if not wish.file_ids:
        return
    known = set(
        (
            await session.execute(
                select(File.id).where(File.owner_id == caller.user_id, File.id.in_(list(wish.file_ids)))
            )
        ).scalars()
    )
    for file_id in wish.file_ids:
        if file_id not in known:
            raise errors.invalid("file_ids", f"There is no file {file_id[:64]!r}; upload it first.")


async def _base(session: AsyncSession, caller: Caller, wish: JobWish) -> Workspace | None:
    if wish.base_workspace is None:
        return None
    base = await workspaces.get(session, caller.user_id, wish.base_workspace)
    if not base.synced:
        raise Problem("conflict", f"Workspace {base.name!r} is only on a VM's disk, so nothing can start from it.")
    return base


def _image(world: World, wish: JobWish, workspace: Workspace | None, base: Workspace | None) -> str:
    """A workspace's files lie over those of its image and make no sense over another's; a fork has its base's."""
    for held in (workspace, base):
        if held is None or held.image is None or (held.generation == 0 and held.vm_id is None):
            continue
        if wish.image is not None and wish.image != held.image:
            raise Problem(
                "conflict",
                f"Workspace {held.name!r} was made with the image {held.image!r}, not {wish.image!r}: leave the image "
                "out, or use another workspace.",
            )
        return held.image
    return wish.image or world.settings.default_image


async def _join(session: AsyncSession, workspace: Workspace, wish: JobWish) -> str | None:
    """The VM that has the workspace, when there is one; it becomes one that stays for a persistent job."""
    if workspace.vm_id is None:
        return None
    vm = await session.get(Vm, workspace.vm_id)
    if vm is None or not vm.active:
        workspace.vm_id = None
        await session.flush()
        return None
    if wish.persistent:
        vm.keep = "stay"
        vm.no_sleep = vm.no_sleep or wish.no_sleep
        vm.startup_command = wish.startup_command or vm.startup_command
        vm.idle_timeout_s = wish.idle_timeout_s or vm.idle_timeout_s
    return vm.id


def new_vm(
    owner: str,
    wish: JobWish,
    workspace: Workspace | None,
    base: Workspace | None,
    *,
    image: str,
    synced: bool,
    host_id: str | None,
    starter: str,
) -> Vm:
    """A VM's record, for a job that is about to be recorded."""
    moment = now_ms()
    # A fork happens once: a workspace that has files of its own does not start from its base again.
    base_id = base.id if base is not None and (workspace is None or workspace.generation == 0) else None
    if workspace is not None and workspace.generation == 0 and base_id is None:
        base_id = workspace.base_id
    return Vm(
        id=new_id(),
        owner_id=owner,
        host_id=host_id,
        state=VmState.RESTORING,
        state_ms=0,
        active=True,
        started=False,
        starter=starter,
        keep="stay" if wish.persistent else "park" if workspace is not None else "job",
        workspace_id=workspace.id if workspace is not None else None,
        attached=synced,
        epoch=0,
        base_id=base_id if synced else None,
        discard=workspace is None and synced,
        revive=False,
        image=image,
        vcpus=wish.vcpus,
        memory_mb=wish.memory_mb,
        disk_gb=max(wish.disk_gb or 1, workspace.disk_gb)
        if workspace is not None
        else wish.disk_gb or (base.disk_gb if base is not None else DEFAULT_DISK_GB),
        environment=dict(wish.environment),
        startup_command=wish.startup_command,
        no_sleep=wish.no_sleep,
        idle_timeout_s=wish.idle_timeout_s,
        created_ms=moment,
        started_ms=None,
        ended_ms=None,
        reason=None,
    )


async def attach(session: AsyncSession, workspace: Workspace, vm: Vm, *, instead_of: str | None = None) -> bool:
    """Give the workspace to the VM under a new epoch, if nobody else (but `instead_of`) has it."""
    free = Workspace.vm_id.is_(None) if instead_of is None else Workspace.vm_id == instead_of
    result = await session.execute(
        update(Workspace)
        .where(Workspace.id == workspace.id, free, Workspace.deleted_ms == 0)
        .values(
            vm_id=vm.id,
            epoch=Workspace.epoch + 1,
            synced=Workspace.synced | vm.attached,
            disk_gb=vm.disk_gb,
            image=vm.image,
        )
        .returning(Workspace.epoch)
        .execution_options(synchronize_session=False)
    )
    epoch = result.scalar_one_or_none()
    if epoch is None:
        return False
    vm.epoch = epoch
    await session.flush()
    session.expire(workspace)
    return True


async def _record_job(
    session: AsyncSession, caller: Caller, wish: JobWish, vm_id: str, job_id: str, vm: Vm | None = None
) -> Submitted:
    moment = now_ms()
    name = wish.name or made_up_name()
    values = {
        "id": job_id,
        "owner_id": caller.user_id,
        "name": name,
        "status": JobStatus.PENDING,
        "script": wish.script,
        "script_url": wish.script_url,
        "environment": dict(wish.environment),
        "file_ids": list(wish.file_ids),
        "workspace": wish.workspace,
        "base_workspace": wish.base_workspace,
        "vm_id": vm_id,
        "persistent": wish.persistent,
        "no_sleep": wish.no_sleep,
        "no_sync": wish.no_sync,
        "ephemeral": wish.ephemeral,
        "startup_command": wish.startup_command,
        "timeout_s": wish.timeout_s,
        "cron_id": wish.cron_id,
        "step": "start",
        "step_ms": moment + LEASE_MS,
        "tries": 0,
        "created_ms": moment,
        "cpu_ms": 0,
        "subdomain": new_label() if wish.url_port is not None else None,
        "url_port": wish.url_port,
    }
    await session.execute(_ADD_JOB, values)
    if wish.url_port is not None:
        session.add(
            OpenPort(
                job_id=job_id,
                port=wish.url_port,
                owner_id=caller.user_id,
                private=False,
                secret=new_label(32),
                created_ms=moment,
            )
        )
    return Submitted(job_id, name, (Job(**values), vm) if vm is not None else None)
