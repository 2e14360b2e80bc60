"""Records as the API shows them."""

from __future__ import annotations

from typing import Any

from mags.control.config import Settings
from mags.control.http.times import moment
from mags.control.lifecycles.addresses import public_url
from mags.control.models import Job, Vm


def between(start: int | None, end: int | None) -> int | None:
    return None if start is None or end is None else max(0, end - start)


def status_view(job: Job, vm: Vm | None, settings: Settings) -> dict[str, Any]:
    """The status object of API.md, exactly."""
    queue = between(job.created_ms, job.started_ms)
    return {
        "request_id": job.id,
        "name": job.name,
        "status": job.status,
        "workspace_id": job.workspace,
        "vm_id": vm.id if vm is not None and vm.started else None,
        "host_id": vm.host_id if vm is not None and vm.started else None,
        "exit_code": job.exit_code,
        "error": job.error,
        "subdomain": job.subdomain,
        "url": public_url(settings, job.subdomain) if job.subdomain is not None else None,
        "persistent": job.persistent,
        "no_sleep": job.no_sleep,
        "startup_command": job.startup_command,
        "created_at": moment(job.created_ms),
        "started_at": moment(job.started_ms),
        "completed_at": moment(job.completed_ms),
        "queue_ms": None if queue is None else max(0, queue - (job.boot_ms or 0)),
        "boot_ms": job.boot_ms,
        "script_duration_ms": between(job.started_ms, job.ended_ms),
        "total_duration_ms": between(job.created_ms, job.completed_ms),
        "start_kind": job.start_kind,
    }


def full_view(job: Job, vm: Vm | None, settings: Settings, removed_ms: int | None) -> dict[str, Any]:
    """The status object and everything that was asked for. `removed_ms`: when its VM goes (lifecycles.removal)."""
    return {
        **status_view(job, vm, settings),
        "script": job.script if job.script is not None else job.script_url,
        "type": "url" if job.script_url is not None else "inline",
        "base_workspace_id": job.base_workspace,
        "environment": job.environment,
        "file_ids": job.file_ids,
        "no_sync": job.no_sync,
        "ephemeral": job.ephemeral,
        "timeout": job.timeout_s,
        "cron_id": job.cron_id,
        "disk_gb": vm.disk_gb if vm is not None else None,
        "vcpus": vm.vcpus if vm is not None else None,
        "memory_mb": vm.memory_mb if vm is not None else None,
        "image": vm.image if vm is not None else None,
        "idle_timeout": vm.idle_timeout_s if vm is not None else None,
        "removed_at": moment(removed_ms),
        "vm_state": vm.state if vm is not None else None,
        "vm_reason": vm.reason if vm is not None else None,
        "cpu_ms": job.cpu_ms,
    }
