"""What requests about jobs look like."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mags.control.http import Body
from mags.control.http.fields import MAX_SCRIPT, Environment, JobName, Script, WorkspaceName
from mags.control.lifecycles.wishes import JobWish
from mags.protocol.ids import IMAGE_NAME

FOREVER = ("sleep infinity",)
"""A script that clients give to a sandbox that should only be there: nothing needs to run for that."""

Seconds = Annotated[int, Field(ge=1, le=30 * 86400)]
IdleSeconds = Annotated[int, Field(ge=5, le=30 * 86400)]
Port = Annotated[int, Field(ge=1, le=65535)]
Command = Annotated[str, Field(max_length=64 << 10)]


def check_command(command: str | list[str]) -> str | list[str]:
    if not command or not command[0]:
        raise ValueError("give a command")
    if isinstance(command, list) and sum(len(word) for word in command) > MAX_SCRIPT:
        raise ValueError("at most 1 MiB")
    return command


class JobRequest(Body):
    """POST /mags-jobs."""

    script: Script = Field(description="Shell script, run with /bin/sh in /root.")
    type: Literal["inline", "url"] = Field("inline", description="url: `script` is where it is fetched, in the VM.")
    name: JobName | None = Field(None, description="Made up if left out.")
    workspace_id: WorkspaceName | None = None
    base_workspace_id: WorkspaceName | None = None
    persistent: bool | None = None
    no_sleep: bool | None = None
    no_sync: bool | None = None
    ephemeral: bool | None = None
    startup_command: Command | None = None
    environment: Environment | None = None
    file_ids: list[Annotated[str, Field(max_length=64)]] | None = Field(None, max_length=100)
    disk_gb: int | None = Field(None, ge=1, le=100)
    vcpus: int | None = Field(None, ge=1, le=64)
    memory_mb: int | None = Field(None, ge=128, le=1 << 20)
    image: str | None = Field(None, pattern=f"^{IMAGE_NAME.pattern}$")
    rootfs_type: str | None = Field(None, pattern=f"^{IMAGE_NAME.pattern}$")
    timeout: Seconds | None = None
    idle_timeout: IdleSeconds | None = None
    port: Port | None = None
    url: bool | None = None

    @model_validator(mode="after")
    def _together(self) -> JobRequest:
        if self.type == "url" and not self.script.startswith(("http://", "https://")):
            raise ValueError('script: with type "url" give an http:// or https:// address')
        if not self.script.strip() and not self.persistent:
            raise ValueError("script: give a command to run")
        if self.no_sleep and not self.persistent:
            raise ValueError("no_sleep: it requires persistent")
        if self.ephemeral and (self.workspace_id or self.base_workspace_id):
            raise ValueError("ephemeral: it excludes a workspace")
        if self.ephemeral and self.persistent:
            raise ValueError("ephemeral: it excludes persistent")
        if self.base_workspace_id is not None and self.no_sync:
            raise ValueError("base_workspace_id: it excludes no_sync")
        if self.base_workspace_id is not None and self.base_workspace_id == self.workspace_id:
            raise ValueError("base_workspace_id: it must differ from workspace_id")
        if self.url and not self.persistent:
            raise ValueError("url: it requires persistent")
        if self.image and self.rootfs_type:
            raise ValueError("rootfs_type: it means the same as image; give one")
        return self

    def wish(self) -> JobWish:
        only_up = bool(self.persistent) and self.type == "inline" and self.script.strip() in ("", *FOREVER)
        image = self.image or (self.rootfs_type if self.rootfs_type != "standard" else None)
        return JobWish(
            script=None if only_up or self.type == "url" else self.script,
            script_url=self.script if self.type == "url" else None,
            name=self.name,
            workspace=self.workspace_id,
            base_workspace=self.base_workspace_id,
            persistent=bool(self.persistent),
            no_sleep=bool(self.no_sleep),
            no_sync=bool(self.no_sync),
            ephemeral=bool(self.ephemeral),
            startup_command=self.startup_command or None,
            environment=self.environment or {},
            file_ids=self.file_ids or [],
            disk_gb=self.disk_gb,
            vcpus=self.vcpus or 1,
            memory_mb=self.memory_mb or 512,
            image=image,
            timeout_s=self.timeout,
            idle_timeout_s=self.idle_timeout,
            url_port=(self.port or 8080) if self.url else None,
        )


class JobChange(Body):
    """PATCH /mags-jobs/{id}. What is left out, or null, stays."""

    startup_command: Command | None = Field(None, description="Empty: none any more.")
    no_sleep: bool | None = None
    name: JobName | None = None
    idle_timeout: IdleSeconds | None = None


class ExecRequest(Body):
    """POST /mags-jobs/{id}/exec."""

    command: Annotated[str, Field(max_length=MAX_SCRIPT)] | list[Annotated[str, Field(max_length=MAX_SCRIPT)]] = Field(
        description="Run by /bin/sh -c; a list is run as it is."
    )
    timeout: float | None = Field(None, gt=0, le=86400, description="Seconds; 30 if left out.")
    environment: Environment | None = None
    workdir: str | None = Field(None, min_length=1, max_length=4096)
    user: str | None = Field(None, min_length=1, max_length=64)
    stdin: str | None = Field(None, max_length=4 << 20)

    @field_validator("command")
    @classmethod
    def _command(cls, value: str | list[str]) -> str | list[str]:
        return check_command(value)


class PtyWish(Body):
    rows: int = Field(24, ge=1, le=10_000)
    cols: int = Field(80, ge=1, le=10_000)
    term: str = Field("xterm-256color", max_length=64, pattern=r"^[A-Za-z0-9._+-]+$")


class ShellStart(Body):
    """The `start` message of exec over a WebSocket."""

    type: Literal["start"]
    command: str | list[str] | None = Field(None, max_length=MAX_SCRIPT)
    pty: PtyWish | None = None
    environment: Environment | None = None
    workdir: str | None = Field(None, min_length=1, max_length=4096)
    user: str | None = Field(None, min_length=1, max_length=64)
    timeout: float | None = Field(None, gt=0, le=30 * 86400)

    @field_validator("command")
    @classmethod
    def _command(cls, value: str | list[str] | None) -> str | list[str] | None:
        return value if value is None else check_command(value)
