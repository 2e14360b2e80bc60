"""Scripts that run at given times."""

from __future__ import annotations

from sqlalchemy import Boolean, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from mags.control.models.base import Base, Id, Json, Moment, Name, Words


class CronJob(Base):
    __tablename__ = "cron_jobs"
    __table_args__ = (UniqueConstraint("owner_id", "name"), Index("ix_cron_jobs_next_ms", "next_ms"))

    id: Mapped[Id] = mapped_column(primary_key=True)
    owner_id: Mapped[Id] = mapped_column(ForeignKey("users.id"))
    name: Mapped[Name]
    cron_expression: Mapped[Name]
    timezone: Mapped[str] = mapped_column(String(64))
    script: Mapped[Words]
    workspace: Mapped[Name | None]
    environment: Mapped[Json]
    persistent: Mapped[bool] = mapped_column(Boolean)
    enabled: Mapped[bool] = mapped_column(Boolean)
    next_ms: Mapped[Moment | None]
    """None while disabled, or when no such time will come."""
    last_ms: Mapped[Moment | None]
    last_request_id: Mapped[Id | None]
    last_error: Mapped[Words | None]
    """Why the last tick could not be submitted."""
    run_count: Mapped[int] = mapped_column(Integer)
    created_ms: Mapped[Moment]
