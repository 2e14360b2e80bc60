"""The tables. Times are Unix milliseconds, ids are UUIDs as text, every record has an owner."""

from __future__ import annotations

from mags.control.models.accounts import SshKey, Token, User
from mags.control.models.base import Base
from mags.control.models.cron import CronJob
from mags.control.models.files import File
from mags.control.models.idempotency import IdempotentRequest
from mags.control.models.jobs import Job
from mags.control.models.urls import Alias, OpenPort, SshPort
from mags.control.models.vms import Vm
from mags.control.models.workspaces import Workspace

__all__ = [
    "Alias",
    "Base",
    "CronJob",
    "File",
    "IdempotentRequest",
    "Job",
    "OpenPort",
    "SshKey",
    "SshPort",
    "Token",
    "User",
    "Vm",
    "Workspace",
]
