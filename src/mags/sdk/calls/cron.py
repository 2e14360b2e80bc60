"""Scripts that run by the clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mags.sdk.calls.call import Call, given, path_of

if TYPE_CHECKING:
    from mags.sdk import types


def cron_create(
    *,
    name: str,
    cron_expression: str,
    script: str,
    workspace_id: str | None = None,
    environment: Mapping[str, str] | None = None,
    persistent: bool = False,
    enabled: bool = True,
    timezone: str | None = None,
) -> Call[types.CronJob]:
    """Run a script by the clock: five fields, or a word such as @hourly; `timezone` such as Europe/Berlin (UTC)."""
    wish = {"name": name, "cron_expression": cron_expression, "script": script, "persistent": persistent}
    wish |= given(workspace_id=workspace_id, environment=dict(environment or {}), timezone=timezone)
    return Call("POST", "/mags-cron", json=wish | {"enabled": enabled}, creates=True)


def cron_list() -> Call[types.CronJobs]:
    """All cron jobs."""
    return Call("GET", "/mags-cron")


def cron_get(cron_id: str) -> Call[types.CronJob]:
    """Everything about a cron job."""
    return Call("GET", path_of("mags-cron", cron_id))


def cron_update(cron_id: str, **updates: Any) -> Call[types.CronJob]:
    """Change a cron job: the fields of `cron_create` by name."""
    return Call("PATCH", path_of("mags-cron", cron_id), json=updates)


def cron_delete(cron_id: str) -> Call[types.Done]:
    """Remove a cron job."""
    return Call("DELETE", path_of("mags-cron", cron_id))


def cron_run(cron_id: str) -> Call[types.Accepted]:
    """Run a cron job now."""
    return Call("POST", path_of("mags-cron", cron_id, "/run"), creates=True)
