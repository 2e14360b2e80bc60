"""What requests about cron jobs look like."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from mags.control.http import Body, View, WarningView
from mags.control.http.fields import Environment, JobName, Script, WorkspaceName
from mags.control.lifecycles import schedule
from mags.protocol.errors import Problem

Expression = Annotated[str, Field(min_length=1, max_length=200)]
CronScript = Annotated[Script, Field(min_length=1)]
Zone = Annotated[str, Field(min_length=1, max_length=64)]


class CronChange(Body):
    """PATCH /mags-cron/{id}. What is left out, or null, stays."""

    name: JobName | None = None
    cron_expression: Expression | None = Field(None, description="Five fields, or a word such as @hourly.")
    script: CronScript | None = None
    workspace_id: WorkspaceName | None = None
    environment: Environment | None = None
    persistent: bool | None = None
    enabled: bool | None = None
    timezone: Zone | None = Field(None, description="Of the IANA database, such as Europe/Berlin.")

    @field_validator("cron_expression")
    @classmethod
    def _expression(cls, value: str | None) -> str | None:
        return value if value is None else _sentence(schedule.check, value)

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str | None) -> str | None:
        return value if value is None else _sentence(lambda name: schedule.zone(name).key, value)


class CronRequest(CronChange):
    """POST /mags-cron."""

    name: JobName
    cron_expression: Expression
    script: CronScript


def _sentence(check: object, value: str) -> str:
    """Run a check whose problems are sentences, so that they come as validation errors of the field."""
    assert callable(check)
    try:
        return str(check(value))
    except Problem as problem:
        raise ValueError(problem.message.partition(": ")[2] or problem.message) from problem


class CronView(WarningView):
    id: str
    name: str
    cron_expression: str
    timezone: str
    script: str
    workspace_id: str | None
    environment: dict[str, str]
    persistent: bool
    enabled: bool
    created_at: str
    next_run_at: str | None
    last_run_at: str | None
    last_request_id: str | None
    last_status: str | None
    last_error: str | None
    run_count: int


class CronList(View):
    cron_jobs: list[CronView]
    total: int


class CronFired(View):
    request_id: str
    status: Literal["accepted"]
    message: str


class Removed(View):
    success: bool
    id: str
