"""The client's typed results name the fields that control really answers."""

from __future__ import annotations

from importlib import import_module
from typing import get_type_hints

import pytest
from pydantic import BaseModel

from mags.sdk import types

PAIRS = {
    "Job": "jobs.answers.JobStatusView",
    "JobPage": "jobs.answers.JobPage",
    "LogLine": "jobs.answers.LogEntry",
    "ExecAnswer": "jobs.answers.ExecAnswer",
    "Workspace": "workspaces.routes.WorkspaceView",
    "Alias": "urls.schemas.AliasView",
    "CronJob": "cron.schemas.CronView",
    "CronJobs": "cron.schemas.CronList",
    "Workspaces": "workspaces.routes.WorkspaceList",
    "Aliases": "urls.schemas.AliasList",
    "PoolStatus": "hosts.routes.Pool",
    "Host": "hosts.routes.HostView",
    "Usage": "accounts.usage.Usage",
    "Day": "accounts.usage.Day",
    "Me": "accounts.schemas.Me",
    "Tokens": "accounts.schemas.TokenList",
    "Token": "accounts.schemas.NewToken",
    "Synced": "jobs.answers.SyncedView",
    "Entry": "jobs.answers.EntryView",
    "Files": "files.routes.FileList",
    "File": "files.routes.FileView",
    "Accepted": "jobs.answers.Accepted",
}


def answered(path: str) -> type[BaseModel]:
    module, _, name = path.rpartition(".")
    found: type[BaseModel] = getattr(import_module(f"mags.control.{module}"), name)
    return found


@pytest.mark.parametrize("name", PAIRS)
def test_the_fields_are_the_servers(name: str) -> None:
    ours = getattr(types, name)
    fields = answered(PAIRS[name]).model_fields
    assert set(get_type_hints(ours)) - set(ours.__optional_keys__) <= set(fields)
    assert {key for key, field in fields.items() if field.is_required()} <= set(get_type_hints(ours))


@pytest.mark.parametrize("name", ["Job", "LogLine", "Workspace", "CronJob", "Token", "Entry"])
def test_what_may_be_unknown_is_the_same(name: str) -> None:
    ours = get_type_hints(getattr(types, name))
    theirs = get_type_hints(answered(PAIRS[name]))
    theirs.pop("warnings", None)
    assert {key: type(None) in getattr(ours[key], "__args__", ()) for key in theirs} == {
        key: type(None) in getattr(hint, "__args__", ()) for key, hint in theirs.items()
    }
