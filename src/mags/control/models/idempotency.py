"""Answers to requests that came with an Idempotency-Key, kept for a day."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from mags.control.models.base import Base, Id, Json, Moment


class IdempotentRequest(Base):
    __tablename__ = "idempotent_requests"

    owner_id: Mapped[Id] = mapped_column(ForeignKey("users.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 of method, path and body: the same key may not be used for something else."""
    status: Mapped[int] = mapped_column(Integer)
    body: Mapped[Json]
    created_ms: Mapped[Moment] = mapped_column(index=True)
