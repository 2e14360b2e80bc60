"""Settings of the host program: one typed table, read from the environment (`MAGS_HOST_*`)."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mags.protocol.ids import HOST_ID


def _machine_name() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", platform.node()).strip("-")[:63] or "host"


class Settings(BaseSettings):
    """What can be set of a host. Durations in seconds, memory in MiB, disks in GiB."""

    model_config = SettingsConfigDict(env_prefix="MAGS_HOST_", frozen=True)

    host_id: str = Field(default_factory=_machine_name, description="Name of this host, unique in the fleet.")
    nats_url: SecretStr = Field(
        SecretStr("nats://127.0.0.1:4222"),
        description="NATS server, with user and password: nats://USER:PASS@HOST:PORT.",
    )
    data_dir: Path = Field(Path("/var/lib/mags"), description="Where templates, VMs and their records live.")
    cache_dir: Path | None = Field(None, description="Images and the kernel; by default `cache` in the data directory.")
    runtime_dir: Path = Field(
        Path("/run/mags"), description="Where network namespaces are pinned; emptied by a reboot."
    )
    accel: Literal["auto", "kvm", "tcg"] = Field(
        "auto", description="How VMs run: `auto` tries KVM with a real boot once and falls back to emulation (TCG)."
    )
    log_level: str = Field("INFO", description="Least severe level of log lines: DEBUG, INFO, WARNING, ERROR.")

    pool_image: str = Field("alpine", description="Image of the VMs that wait in the pool.")
    pool_vcpus: int = Field(1, ge=1, description="Virtual processors of the VMs in the pool.")
    pool_memory_mb: int = Field(512, ge=128, description="Memory of the VMs in the pool.")
    pool_disk_gb: int = Field(2, ge=1, description="Writable disk of the VMs in the pool.")
    pool_target: int = Field(4, ge=0, description="How many VMs wait, ready for a script. 0: no pool.")
    pool_max_load: float = Field(
        4.0, gt=0, description="The pool is not refilled while the machine's load per processor is above this."
    )
    pool_quiet_s: float = Field(
        0.15, ge=0, description="The pool is refilled only when no VM was asked for during this long."
    )

    clones_at_once: int | None = Field(
        None, ge=1, description="How many VMs may be made at once; others wait. By default twice the processors."
    )
    memory_reserve_mb: int = Field(1024, ge=0, description="Memory that stays free: no new VM when less is available.")
    disk_reserve_gb: float = Field(
        2.0, ge=0, description="Disk space that stays free: no new VM when less is available."
    )
    max_vms: int = Field(1000, ge=1, description="How many VMs may be on this host, whatever else it has room for.")

    park_timeout_s: float = Field(
        300.0, gt=0, description="How long a workspace's VM is kept up after its last script, for the next one."
    )
    idle_timeout_s: float = Field(600.0, gt=0, description="A persistent VM without activity for this long sleeps.")
    local_retention_s: float = Field(
        7 * 86400.0, gt=0, description="How long a sleeping VM is kept whose workspace is on this host only."
    )
    stop_grace_s: float = Field(
        2.0, ge=0, description="Time that scripts have between SIGTERM and the end of their VM."
    )
    stall_patience_s: float = Field(
        25.0,
        gt=0,
        description="Seconds that the end of a VM whose disk is away waits for it, and then for its files to be saved.",
    )
    cancel_grace_s: float = Field(
        5.0, ge=0, description="Time that a cancelled script has between SIGTERM and SIGKILL."
    )
    pulse_s: float = Field(10.0, gt=0, description="How often a VM is asked whether it lives.")
    pulse_deadline_s: float = Field(45.0, gt=0, description="A VM that does not answer for this long has failed.")

    subnet: str = Field("10.231.0.0/16", description="Private network that VMs' addresses on this host come from.")
    namespace_target: int = Field(8, ge=1, description="How many VM networks are made ahead.")
    allowed_networks: list[str] = Field([], description="Private networks (CIDR) that VMs may reach all the same.")
    blocked_networks: list[str] = Field([], description="Public networks (CIDR) that VMs may not reach.")
    allow_smtp: bool = Field(False, description="Whether VMs may connect to mail servers (port 25).")

    @field_validator("host_id")
    @classmethod
    def _host_id(cls, value: str) -> str:
        if not HOST_ID.fullmatch(value):
            raise ValueError("letters, digits, - and _ only, at most 63")
        return value

    @property
    def cache(self) -> Path:
        return self.cache_dir if self.cache_dir is not None else self.data_dir / "cache"

    @property
    def state(self) -> Path:
        """The host's own part of the data directory."""
        return self.data_dir / "host"
