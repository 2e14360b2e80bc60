"""A job as it is wished for, already checked: what POST /mags-jobs and a cron tick both hand to `submission`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWish:
    """Names and meanings as in POST /mags-jobs."""

    script: str | None
    """None with `script_url`, and for a sandbox that only comes up."""
    script_url: str | None = None
    name: str | None = None
    workspace: str | None = None
    base_workspace: str | None = None
    persistent: bool = False
    no_sleep: bool = False
    no_sync: bool = False
    ephemeral: bool = False
    startup_command: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    file_ids: Sequence[str] = ()
    disk_gb: int | None = None
    vcpus: int = 1
    memory_mb: int = 512
    image: str | None = None
    """None: the workspace's, else the server's default."""
    timeout_s: int | None = None
    idle_timeout_s: int | None = None
    url_port: int | None = None
    cron_id: str | None = None
