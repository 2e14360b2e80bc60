"""Workspaces: a name under which files are kept, in the object store or only on a VM's disk."""

from __future__ import annotations

from sqlalchemy import Boolean, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from mags.control.models.base import Base, Count, Id, Moment, Name


class Workspace(Base):
    __tablename__ = "workspaces"
    __table_args__ = (
        UniqueConstraint("owner_id", "name", "deleted_ms"),
        Index("ix_workspaces_vm_id", "vm_id"),
        Index("ix_workspaces_deleted_ms", "deleted_ms"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    owner_id: Mapped[Id] = mapped_column(ForeignKey("users.id"))
    name: Mapped[Name]
    synced: Mapped[bool] = mapped_column(Boolean)
    """False while it lives on VMs' local disks only (no_sync)."""
    vm_id: Mapped[Id | None]
    """The VM that has it now; at most one."""
    epoch: Mapped[int] = mapped_column(Integer)
    """Goes up with each attachment; a sync under an older one is refused."""
    generation: Mapped[int] = mapped_column(Integer)
    """The newest complete sync; 0: none yet."""
    disk_gb: Mapped[int] = mapped_column(Integer)
    image: Mapped[str | None] = mapped_column(String(255))
    """The image whose files its own lie over; None: no VM has had it yet."""
    base_id: Mapped[Id | None]
    base_name: Mapped[str | None] = mapped_column(String(255))
    size_bytes: Mapped[Count]
    created_ms: Mapped[Moment]
    used_ms: Mapped[Moment]
    synced_ms: Mapped[Moment | None]
    deleted_ms: Mapped[Moment]
    """0, or when it was deleted: the row stays until a host has removed the data."""
