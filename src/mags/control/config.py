"""Settings of control, each from the environment variable MAGS_CONTROL_<NAME>."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything control can be told. See docs/operations.md for how they go together."""

    model_config = SettingsConfigDict(env_prefix="MAGS_CONTROL_", extra="ignore")

    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(4280, ge=0, le=65535, description="Port that the API listens on; 0 takes a free one.")
    uds: Path | None = Field(None, description="Listen on this Unix socket instead of address and port.")
    fd: int | None = Field(None, description="Listen on this inherited file descriptor instead.")
    public_url: str | None = Field(None, description="URL under which users reach the API; made from host and port.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    nats_url: SecretStr = Field(
        SecretStr("nats://127.0.0.1:4222"), description="The NATS server, with user and password."
    )
    database_url: SecretStr = Field(
        SecretStr("sqlite:///control.db"),
        description="SQLAlchemy URL: sqlite:///PATH or postgresql+asyncpg://USER:PASSWORD@HOST/NAME.",
    )
    bootstrap_token_file: Path | None = Field(
        None, description="File with a token; the first user is made at start with this token, if it is not there yet."
    )
    bootstrap_user: str = Field("admin", description="Name of that first user.")

    max_vms: int = Field(
        1000, ge=1, description="VMs that one user may have at once, unless the user has an own limit."
    )
    max_pending: int = Field(2000, ge=1, description="Jobs of one user that may wait for a VM at once.")
    max_vcpus: int = Field(8, ge=1, description="vCPUs that one VM may have.")
    max_memory_mb: int = Field(8192, ge=128, description="Memory in MB that one VM may have.")
    max_file_bytes: int = Field(1 << 30, ge=1, description="Largest uploaded file in bytes.")
    max_uploaded_bytes: int = Field(10 << 30, ge=1, description="Bytes of one user's uploaded files together.")
    max_records: int = Field(1000, ge=1, description="Tokens, SSH keys, aliases and cron jobs of one user, of each.")
    max_body_bytes: int = Field(8 << 20, ge=1 << 20, description="Largest JSON body of a request in bytes.")
    default_image: str = Field("alpine", description="Image of VMs that name none.")

    start_timeout_s: float = Field(90.0, gt=0, description="Seconds that a host has to start a VM.")
    stop_timeout_s: float = Field(300.0, gt=0, description="Seconds that a host has to sync and end a VM.")
    queue_timeout_s: float = Field(3600.0, gt=0, description="Seconds that a job waits for a host before it fails.")
    host_lost_s: float = Field(
        30.0,
        gt=0,
        description="A host that is silent for this long is lost: its jobs end, or go on elsewhere.",
    )
    starts_per_host: int = Field(16, ge=1, description="Starts that are under way on one host at once.")
    job_retention_s: float = Field(
        30 * 86400.0,
        ge=60,
        description="Seconds that a job is remembered after its end. What it wrote is kept for seven days at most.",
    )
    poll_interval_s: float = Field(1.0, gt=0, description="Seconds between two looks for work that was left behind.")

    apps_domain: str = Field("apps.localhost", description="Public URLs are SUBDOMAIN.<this>.")
    apps_scheme: str = Field("http", pattern="^https?$", description="Scheme of public URLs.")
    apps_port: int | None = Field(4281, description="Port in public URLs; empty where it is the scheme's own.")
    link_lifetime_s: float = Field(86400.0, gt=0, description="Seconds that a signed link to a private URL works.")
    ssh_host: str = Field("127.0.0.1", description="Name of the SSH gateway, as users reach it.")
    ssh_port: int = Field(2222, ge=1, le=65535, description="The gateway's common port.")
    ssh_port_first: int = Field(0, ge=0, le=65535, description="First of the ports that VMs get of their own; 0: none.")
    ssh_port_count: int = Field(1000, ge=1, le=50000, description="How many such ports there are.")
