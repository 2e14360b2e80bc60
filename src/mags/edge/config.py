"""Settings of an edge: environment variables `MAGS_EDGE_*`."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mags.kit.addresses import split_address
from mags.kit.machine import machine_id

SOCKET_PATH_LIMIT = 107
"""Bytes of a unix socket's path (unix(7): sun_path has 108 with its end)."""
LONGEST_SOCKET_NAME = len("/u/") + 63 + len(".sock")


class Settings(BaseSettings):
    """Everything that can be set. Addresses are `HOST:PORT`; durations are seconds."""

    model_config = SettingsConfigDict(env_prefix="MAGS_EDGE_")

    nats_url: SecretStr = Field(
        default=SecretStr("nats://127.0.0.1:4222"), description="Where NATS is, with user and password."
    )
    data_dir: Path = Field(
        default=Path("/var/lib/mags/edge"), description="Directory for the SSH host key, certificates and logs."
    )
    run_dir: Path | None = Field(
        default=None, description="Directory for sockets; its path must be short. Default: `run` in the data directory."
    )
    edge_id: str = Field(default_factory=socket.gethostname, description="This edge's name among others.")
    machine_id: str = Field(
        default_factory=machine_id,
        description="Hosts that say the same are reached directly, others through NATS. Made by itself.",
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    listen_http: str = Field(default="127.0.0.1:4281", description="Where plain HTTP is answered.")
    listen_https: str = Field(default="0.0.0.0:443", description="Where HTTPS is answered, when `tls` is not off.")
    apps_domain: str = Field(default="apps.localhost", description="Public URLs are NAME.<this domain>.")
    tls: Literal["off", "internal", "acme"] = Field(
        default="off",
        description="off: plain HTTP. internal: certificates of an own authority. acme: of a public one, on demand.",
    )
    acme_email: str = Field(default="", description="Contact that the certificate authority is given.")
    acme_directory: str = Field(default="", description="ACME directory URL of another authority than the default.")
    acme_root: Path | None = Field(
        default=None,
        description="File (PEM) with the root certificate of that authority's server, when it is one of your own.",
    )
    listen_timeout_s: float = Field(
        default=10.0, gt=0, description="How long a request waits for the program in the VM to listen on its port."
    )
    activity_interval_s: float = Field(
        default=1.0, gt=0, description="How often hosts are told of the connections that are open into their VMs."
    )
    max_header_kb: int = Field(default=64, ge=4, le=1024, description="KiB of request headers; more is refused (431).")
    header_timeout_s: float = Field(default=10.0, gt=0, description="Time a client has to send its request headers.")

    ssh_listen: str = Field(default="127.0.0.1", description="Address of the SSH gateway.")
    ssh_port: int = Field(default=2222, ge=0, le=65535, description="The common SSH port; the user names the sandbox.")
    ssh_port_range: str = Field(
        default="", description="FIRST-LAST: ports that VMs get as their own for SSH. Empty: none."
    )
    ssh_max_connections: int = Field(default=1000, ge=1, description="SSH connections at once, in all.")
    ssh_max_unauthenticated: int = Field(default=400, ge=1, description="Of these, not yet logged in.")
    ssh_max_per_client: int = Field(default=200, ge=1, description="SSH connections at once from one address.")
    ssh_max_sessions: int = Field(default=64, ge=1, description="Channels at once in one SSH connection.")
    ssh_login_timeout_s: float = Field(default=30.0, gt=0, description="Time a client has to log in.")

    @field_validator("apps_domain")
    @classmethod
    def _domain(cls, text: str) -> str:
        text = text.strip(".").lower()
        if not re.fullmatch(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", text):
            raise ValueError("is not a domain name")
        return text

    @field_validator("listen_http", "listen_https")
    @classmethod
    def _address(cls, text: str) -> str:
        split_address(text)
        return text

    @field_validator("ssh_port_range")
    @classmethod
    def _range(cls, text: str) -> str:
        if text:
            match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
            if match is None or not 0 < int(match[1]) <= int(match[2]) <= 65535:
                raise ValueError("is not FIRST-LAST with two port numbers")
        return text

    @model_validator(mode="after")
    def _short_paths(self) -> Settings:
        longest = len(str(self.sockets)) + LONGEST_SOCKET_NAME
        if longest > SOCKET_PATH_LIMIT:
            raise ValueError(
                f"the path {self.sockets} is too long for sockets (by {longest - SOCKET_PATH_LIMIT} characters): "
                "set MAGS_EDGE_RUN_DIR to a shorter one"
            )
        return self

    @property
    def sockets(self) -> Path:
        """The directory of the sockets."""
        return self.run_dir if self.run_dir is not None else self.data_dir / "run"

    @property
    def own_ports(self) -> range:
        """The ports that VMs may have for SSH."""
        if not self.ssh_port_range:
            return range(0)
        first, _, last = self.ssh_port_range.partition("-")
        return range(int(first), int(last) + 1)
