"""VMs as control knows them: where they are and what they were made from. The host owns their real state."""

from __future__ import annotations

from sqlalchemy import Boolean, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from mags.control.models.base import Base, Id, Json, Moment, Name, Words


class Vm(Base):
    __tablename__ = "vms"
    __table_args__ = (
        Index("ix_vms_owner_id_active", "owner_id", "active"),
        Index("ix_vms_active_host_id", "active", "host_id"),
        Index("ix_vms_workspace_id", "workspace_id"),
        Index("ix_vms_ended_ms", "ended_ms"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    owner_id: Mapped[Id] = mapped_column(ForeignKey("users.id"))
    host_id: Mapped[str | None] = mapped_column(String(63))
    """None until it is placed."""
    state: Mapped[str] = mapped_column(String(16))
    state_ms: Mapped[Moment]
    """When the host says it came into this state; older news is ignored."""
    active: Mapped[bool] = mapped_column(Boolean)
    """Not gone and not failed: it counts for quotas and capacity."""
    started: Mapped[bool] = mapped_column(Boolean)
    """Its host has answered that it runs."""
    starter: Mapped[Id]
    """The job whose `start` brings it up."""
    keep: Mapped[str] = mapped_column(String(8))
    workspace_id: Mapped[Id | None] = mapped_column(ForeignKey("workspaces.id"))
    attached: Mapped[bool] = mapped_column(Boolean)
    """It has a synced workspace (or a throw-away copy of one), under `epoch`."""
    epoch: Mapped[int] = mapped_column(Integer)
    base_id: Mapped[Id | None]
    """Another workspace whose files it starts from."""
    discard: Mapped[bool] = mapped_column(Boolean)
    revive: Mapped[bool] = mapped_column(Boolean)
    """It takes the place of one that was lost: no script, but the startup command."""
    image: Mapped[Name]
    vcpus: Mapped[int] = mapped_column(Integer)
    memory_mb: Mapped[int] = mapped_column(Integer)
    disk_gb: Mapped[int] = mapped_column(Integer)
    environment: Mapped[Json]
    startup_command: Mapped[Words | None]
    no_sleep: Mapped[bool] = mapped_column(Boolean)
    idle_timeout_s: Mapped[int | None] = mapped_column(Integer)
    created_ms: Mapped[Moment]
    started_ms: Mapped[Moment | None]
    ended_ms: Mapped[Moment | None]
    reason: Mapped[Words | None]
