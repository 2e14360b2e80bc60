"""What the server answers, as the API documents it. Plain dictionaries at run time.

A field that is not known yet is None. Times are ISO 8601 in UTC; `_ms` are milliseconds, `_gb` and `_mb` say so.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Status = Literal["pending", "running", "sleeping", "completed", "error"]


class Accepted(TypedDict):
    request_id: str
    status: str
    message: NotRequired[str]
    name: NotRequired[str]
    warnings: NotRequired[list[str] | None]


class Job(TypedDict):
    request_id: str
    name: str
    status: Status
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


class JobRecord(Job, total=False):
    """Beside it, all that was asked for. `removed_at`: when a VM that sleeps goes with its files, if they are nowhere
    else. `vm_reason`: why its host did with it what was not asked for, or could not do what was."""

    idle_timeout: int | None
    removed_at: str | None
    vm_state: str | None
    vm_reason: str | None


class JobPage(TypedDict):
    jobs: list[Job]
    total: int
    page: int
    page_size: int


class LogLine(TypedDict):
    timestamp: str
    level: Literal["info", "error"]
    message: str
    stream: Literal["stdout", "stderr", "system"]


class Logs(TypedDict):
    logs: list[LogLine]


class RunResult(TypedDict):
    request_id: str
    status: Status
    exit_code: int | None
    duration_ms: int | None
    error: str | None
    logs: list[LogLine]


class Running(TypedDict):
    request_id: str
    status: str


class ExecAnswer(TypedDict):
    exit_code: int
    stdout: str
    stderr: str
    duration_ms: int
    truncated: bool


class ExecResult(ExecAnswer):
    """`output` is `stdout` under the name of the published client."""

    output: str


class Synced(TypedDict):
    synced_at: str
    bytes: int
    duration_ms: int
    freeze_ms: int
    """How long the guest's writes waited."""


class Access(TypedDict):
    """Port 22 gives the ssh_ fields, every other port url, subdomain and port."""

    success: bool
    url: NotRequired[str]
    subdomain: NotRequired[str]
    port: NotRequired[int]
    private: NotRequired[bool]
    signed_url: NotRequired[str]
    """Opens a private one."""
    alias_urls: NotRequired[list[str]]
    """The same under the aliases that lead to it now, signed if it is private."""
    ssh_host: NotRequired[str]
    ssh_port: NotRequired[int]
    ssh_user: NotRequired[str]
    ssh_private_key: NotRequired[str | None]
    """None when the `public_key` that was sent is good."""
    ssh_host_key: NotRequired[str]


class Entry(TypedDict):
    """A name in a directory of a VM."""

    name: str
    type: Literal["file", "directory", "link", "other"]
    size: int
    mode: str
    """Permissions in octal, such as "644"."""
    uid: int
    gid: int
    modified_at: str
    target: str | None
    """Where a link leads."""


class Day(TypedDict):
    date: str
    jobs: int
    completed_jobs: int
    failed_jobs: int
    vm_seconds: int


class Usage(TypedDict):
    window_days: int
    total_jobs: int
    completed_jobs: int
    failed_jobs: int
    running_jobs: int
    vm_seconds: int
    cpu_seconds: int
    storage_bytes: int
    by_day: list[Day]


class Host(TypedDict):
    host_id: str
    status: Literal["live", "suspect", "lost"]
    version: str
    accelerator: str
    cpus: int
    memory_mb: int
    free_memory_mb: int
    free_disk_gb: float
    load: float
    accepting: bool
    reason: str
    idle_vms: int
    busy_vms: int
    sleeping_vms: int
    parked_vms: int
    images: list[str]
    storage: str


class Me(TypedDict):
    user_id: str
    name: str
    scopes: list[str]
    max_vms: int
    max_vcpus: int
    max_memory_mb: int
    vms: int


class PoolStatus(TypedDict):
    idle_vms: int
    busy_vms: int
    sleeping_vms: int
    parked_vms: int
    total_vms: int
    min_pool_size: int
    max_pool_size: int
    hosts: list[Host]


class File(TypedDict):
    file_id: str
    name: str
    size: int
    sha256: str
    created_at: NotRequired[str]


class Files(TypedDict):
    files: list[File]
    total: int


class Workspace(TypedDict):
    """`removed_at`: when the VM that has its files goes with them, as it sleeps and they are nowhere else."""

    workspace_id: str
    created_at: str
    last_used_at: str
    last_synced_at: str | None
    size_bytes: int
    disk_gb: int
    image: str | None
    base_workspace_id: str | None
    synced: bool
    job: str | None
    removed_at: str | None


class Workspaces(TypedDict):
    workspaces: list[Workspace]
    total: int
    page: int
    page_size: int


class Alias(TypedDict):
    id: str
    subdomain: str
    url: str
    workspace_id: str
    created_at: str


class Aliases(TypedDict):
    aliases: list[Alias]
    total: int


class CronJob(TypedDict):
    id: str
    name: str
    cron_expression: str
    script: str
    workspace_id: str | None
    environment: dict[str, str]
    persistent: bool
    enabled: bool
    timezone: str
    created_at: str
    next_run_at: str | None
    last_run_at: str | None
    last_request_id: str | None
    last_status: str | None
    last_error: str | None
    run_count: int


class CronJobs(TypedDict):
    cron_jobs: list[CronJob]
    total: int


class Token(TypedDict):
    id: str
    name: str
    prefix: str
    scopes: list[str]
    created_at: str
    last_used_at: str | None
    expires_at: str | None
    token: NotRequired[str | None]
    """Only in the answer that creates it; None where that is repeated."""


class Tokens(TypedDict):
    tokens: list[Token]
    total: int
    page: int
    page_size: int


class Done(TypedDict):
    """An answer that only says that it was done."""

    success: NotRequired[bool]
    status: NotRequired[str]
    message: NotRequired[str]
