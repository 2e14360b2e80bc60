"""What leads into VMs from outside: open ports under a job's subdomain, aliases of workspaces, SSH ports."""

from __future__ import annotations

from sqlalchemy import Boolean, ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from mags.control.models.base import Base, Id, Moment, Name


class OpenPort(Base):
    __tablename__ = "open_ports"

    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    port: Mapped[int] = mapped_column(Integer, primary_key=True)
    owner_id: Mapped[Id] = mapped_column(ForeignKey("users.id"))
    private: Mapped[bool] = mapped_column(Boolean)
    secret: Mapped[str] = mapped_column(String(64))
    """Key of its signed links."""
    created_ms: Mapped[Moment]


class Alias(Base):
    __tablename__ = "aliases"
    id: Mapped[Id] = mapped_column(primary_key=True)
    owner_id: Mapped[Id] = mapped_column(ForeignKey("users.id"), index=True)
    subdomain: Mapped[str] = mapped_column(String(63), unique=True)
    workspace: Mapped[Name]
    created_ms: Mapped[Moment]


class SshPort(Base):
    """A port of the gateway that leads to one job's VM."""

    __tablename__ = "ssh_ports"

    port: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    job_id: Mapped[Id] = mapped_column(ForeignKey("jobs.id"), unique=True)
    owner_id: Mapped[Id] = mapped_column(ForeignKey("users.id"))
