"""What is answered about jobs (built in `views`, `logs`, `execs`, `vm_files`, `service`)."""

from __future__ import annotations

from typing import Literal

from mags.control.http import View, WarningView


class Accepted(WarningView):
    request_id: str
    status: Literal["accepted"]
    message: str
    name: str


class JobStatusView(View):
    request_id: str
    name: str
    status: Literal["pending", "running", "sleeping", "completed", "error"]
    workspace_id: str | None
    vm_id: str | None
    host_id: str | None
    exit_code: int | None
    error: str | None
    subdomain: str | None
    url: str | None
    persistent: bool
    no_sleep: bool
    startup_command: str | None
    created_at: str
    started_at: str | None
    completed_at: str | None
    queue_ms: int | None
    boot_ms: int | None
    script_duration_ms: int | None
    total_duration_ms: int | None
    start_kind: Literal["pool", "clone", "cold", "parked", "warm"] | None


class JobRecord(JobStatusView, WarningView):
    """The status and everything that was asked for."""

    script: str | None
    type: Literal["inline", "url"]
    base_workspace_id: str | None
    environment: dict[str, str]
    file_ids: list[str]
    no_sync: bool
    ephemeral: bool
    timeout: int | None
    cron_id: str | None
    disk_gb: int | None
    vcpus: int | None
    memory_mb: int | None
    image: str | None
    idle_timeout: int | None
    removed_at: str | None
    vm_state: str | None
    vm_reason: str | None
    cpu_ms: int


class JobPage(View):
    jobs: list[JobStatusView]
    total: int
    page: int
    page_size: int


class LogEntry(View):
    timestamp: str
    level: Literal["info", "error"]
    message: str
    stream: Literal["stdout", "stderr", "system"]


class Logs(View):
    logs: list[LogEntry]
    truncated: bool


class ExecAnswer(WarningView):
    exit_code: int
    stdout: str
    stderr: str
    duration_ms: int
    truncated: bool


class Stopped(View):
    success: bool
    request_id: str
    status: Literal["pending", "running", "sleeping", "completed", "error"]
    message: str


class SyncedView(View):
    synced_at: str
    bytes: int
    duration_ms: int
    freeze_ms: int


class PowerView(View):
    success: bool
    request_id: str
    status: Literal["running", "sleeping"]


class EntryView(View):
    """A name in a directory; `mode` in octal."""

    name: str
    type: Literal["file", "directory", "link", "other"]
    size: int
    mode: str
    uid: int
    gid: int
    modified_at: str
    target: str | None


class Listing(View):
    path: str
    entries: list[EntryView]
    total: int


class Written(View):
    path: str
    size: int


class Removed(View):
    success: bool
    path: str
