"""Jobs: one run of a script, or a sandbox that stays."""

from __future__ import annotations

from sqlalchemy import Boolean, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from mags.control.models.base import Base, Count, Id, Json, JsonList, Moment, Name, Words


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_owner_id_created_ms", "owner_id", "created_ms"),
        Index("ix_jobs_owner_id_status", "owner_id", "status"),
        Index("ix_jobs_owner_id_name", "owner_id", "name"),
        Index("ix_jobs_owner_id_workspace", "owner_id", "workspace"),
        Index("ix_jobs_step_ms", "step_ms"),
        Index("ix_jobs_vm_id", "vm_id"),
        Index("ix_jobs_completed_ms", "completed_ms"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    owner_id: Mapped[Id] = mapped_column(ForeignKey("users.id"))
    name: Mapped[Name]
    status: Mapped[str] = mapped_column(String(16))
    script: Mapped[Words | None]
    script_url: Mapped[Words | None]
    environment: Mapped[Json]
    file_ids: Mapped[JsonList]
    workspace: Mapped[Name | None]
    """The workspace's name, as the user gave it."""
    base_workspace: Mapped[Name | None]
    vm_id: Mapped[Id | None] = mapped_column(ForeignKey("vms.id"))
    persistent: Mapped[bool] = mapped_column(Boolean)
    no_sleep: Mapped[bool] = mapped_column(Boolean)
    no_sync: Mapped[bool] = mapped_column(Boolean)
    ephemeral: Mapped[bool] = mapped_column(Boolean)
    startup_command: Mapped[Words | None]
    timeout_s: Mapped[int | None] = mapped_column(Integer)
    cron_id: Mapped[Id | None] = mapped_column(index=True)

    step: Mapped[str] = mapped_column(String(16))
    """What its lifecycle does next; empty: nothing, events carry it on."""
    step_ms: Mapped[Moment | None]
    """When somebody may take the step up; None: nobody needs to."""
    tries: Mapped[int] = mapped_column(Integer, default=0)
    stop_ms: Mapped[Moment | None]
    """When somebody wished it to stop."""

    exit_code: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[Words | None]
    start_kind: Mapped[str | None] = mapped_column(String(8))
    boot_ms: Mapped[int | None] = mapped_column(Integer)
    created_ms: Mapped[Moment]
    started_ms: Mapped[Moment | None]
    ended_ms: Mapped[Moment | None]
    """When its script ended."""
    completed_ms: Mapped[Moment | None]
    cpu_ms: Mapped[Count] = mapped_column(default=0)

    subdomain: Mapped[str | None] = mapped_column(String(63), unique=True)
    url_port: Mapped[int | None] = mapped_column(Integer)
    """The port that the bare subdomain leads to."""
