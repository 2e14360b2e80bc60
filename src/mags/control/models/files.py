"""Uploaded files; their bytes lie in the object store under the same id."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from mags.control.models.base import Base, Count, Id, Moment, Name


class File(Base):
    __tablename__ = "files"

    id: Mapped[Id] = mapped_column(primary_key=True)
    owner_id: Mapped[Id] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[Name]
    size: Mapped[Count]
    sha256: Mapped[str] = mapped_column(String(64))
    created_ms: Mapped[Moment]
