"""The settings of the storage engine (environment: MAGS_HOST_STORAGE_...)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class StorageSettings(BaseSettings):
    """Where workspaces live. `kind` decides which of the other settings matter."""

    model_config = SettingsConfigDict(env_prefix="MAGS_HOST_STORAGE_", extra="ignore")

    kind: Literal["off", "local", "s3"] = Field(
        "local", description="Blocks of workspaces: in a local directory, in an S3 bucket, or no workspaces at all."
    )
    meta_url: SecretStr | None = Field(
        None,
        description="Metadata engine of JuiceFS: redis://, postgres://, mysql:// or sqlite3:// URL. "
        "Several hosts need one that all reach. Empty: SQLite in the data directory.",
    )
    volume: str = Field("mags", pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", description="Name of the volume.")
    endpoint: str = Field("", description="S3: the service's URL, such as http://127.0.0.1:8333.")
    bucket: str = Field(
        "mags",
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="S3: the bucket; made at the start if it is missing and the key may do so.",
    )
    region: str = Field("us-east-1", description="S3: the region that requests are signed for.")
    access_key: str = Field("", description="S3: access key.")
    secret_key: SecretStr = Field(SecretStr(""), description="S3: secret key.")
    blocks_dir: Path | None = Field(None, description="Local: directory of the blocks. Empty: in the data directory.")
    cache_dir: Path | None = Field(None, description="Blocks read before. Empty: in the data directory.")
    cache_mb: int = Field(10_240, ge=64, description="Size of that cache, MiB.")
    buffer_mb: int = Field(128, ge=32, description="Memory for reads and writes under way, MiB.")
    upload_limit_mbps: int = Field(0, ge=0, description="Upload at most this many Mbit/s; 0: no limit.")
    download_limit_mbps: int = Field(0, ge=0, description="Download at most this many Mbit/s; 0: no limit.")
    io_retries: int = Field(2, ge=1, description="Tries of one request to the object store before it is an I/O error.")
    put_timeout_s: float = Field(10.0, gt=0, description="Deadline of one upload (4 MiB at most), seconds.")
    get_timeout_s: float = Field(10.0, gt=0, description="Deadline of one download (4 MiB at most), seconds.")
    sync_interval_s: float = Field(30.0, gt=0, description="Seconds between two syncs of a workspace.")
    collect_interval_s: float = Field(3600.0, gt=0, description="Seconds between two garbage collections.")
