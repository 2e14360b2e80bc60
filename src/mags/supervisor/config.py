"""Settings of `mags up` (environment MAGS_UP_*, and the flags of the command).

The programs it starts take their own settings from the same environment: MAGS_CONTROL_*, MAGS_HOST_*, MAGS_EDGE_*.
What `mags up` decides itself (NATS, directories, ports) wins over these; everything else is passed through.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mags.kit.addresses import split_address

Program = Literal["control", "host", "edge"]
ALL: tuple[Program, ...] = ("control", "host", "edge")


class Settings(BaseSettings):
    """Addresses are HOST:PORT."""

    model_config = SettingsConfigDict(env_prefix="MAGS_UP_", extra="ignore", frozen=True)

    data_dir: Path = Field(Path("/var/lib/mags"), description="Everything that is kept: records, images, VMs, logs.")
    api: str = Field("127.0.0.1:4280", description="Where the API listens.")
    apps: str = Field("127.0.0.1:4281", description="Where public URLs are served.")
    ssh: str = Field("127.0.0.1:2222", description="Where the SSH gateway listens.")
    nats: str = Field(
        "127.0.0.1:0",
        description="Where NATS listens, for hosts on other machines too; port 0: on any free port.",
    )
    apps_domain: str = Field("apps.localhost", description="Public URLs are NAME.<this domain>.")
    programs: tuple[Program, ...] = Field(ALL, description="What to start, of control, host and edge (a JSON list).")
    s3: Literal["", "local", "seaweedfs"] = Field(
        "", description="Where workspaces' blocks go: `local` directory, `seaweedfs` (S3 on this machine). Empty: "
        "where those of the data directory are; in a new one what MAGS_HOST_STORAGE_* says (a local directory)."
    )  # fmt: skip
    start_timeout_s: float = Field(120.0, gt=0, description="Seconds that a program has to become ready.")

    @field_validator("api", "apps", "ssh", "nats")
    @classmethod
    def _address(cls, text: str) -> str:
        split_address(text)
        return text

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()


def reachable(address: str) -> str:
    """HOST:PORT of an address for programs of this machine."""
    host, port = split_address(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable_url(address: str) -> str:
    """The URL of an address for programs of this machine."""
    return f"http://{reachable(address)}"


def inherited_environment() -> dict[str, str]:
    """What the programs get from ours."""
    return dict(os.environ)
