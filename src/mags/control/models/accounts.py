"""Who may do something: users, their tokens (hashed), their SSH keys."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from mags.control.models.base import Base, Id, JsonList, Moment, Name, Words


class User(Base):
    __tablename__ = "users"

    id: Mapped[Id] = mapped_column(primary_key=True)
    name: Mapped[Name] = mapped_column(unique=True)
    created_ms: Mapped[Moment]
    max_vms: Mapped[int | None] = mapped_column(Integer)
    """Own limits; None: the server's."""
    max_vcpus: Mapped[int | None] = mapped_column(Integer)
    max_memory_mb: Mapped[int | None] = mapped_column(Integer)


class Token(Base):
    __tablename__ = "tokens"

    id: Mapped[Id] = mapped_column(primary_key=True)
    owner_id: Mapped[Id] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[Name]
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the token in hexadecimal. Tokens are random, so no salt or slow hash is needed."""
    prefix: Mapped[str] = mapped_column(String(16))
    """Its first letters, by which people tell their tokens apart."""
    scopes: Mapped[JsonList]
    created_ms: Mapped[Moment]
    expires_ms: Mapped[Moment | None]
    last_used_ms: Mapped[Moment | None]


class SshKey(Base):
    """A public key that opens one job's VM (made by `access`), or with job_id None all of its owner's."""

    __tablename__ = "ssh_keys"
    __table_args__ = (Index("ix_ssh_keys_fingerprint", "fingerprint"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    owner_id: Mapped[Id] = mapped_column(ForeignKey("users.id"), index=True)
    job_id: Mapped[Id | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    name: Mapped[Name]
    public_key: Mapped[Words]
    fingerprint: Mapped[str] = mapped_column(String(64))
    created_ms: Mapped[Moment]
