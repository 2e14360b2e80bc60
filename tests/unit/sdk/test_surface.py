"""The public names, and that a program written for the published client finds everything it uses."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import mags
from mags import AsyncMags, Mags
from mags.sdk import async_sandbox, sandbox
from tests.kit import twins

NAMES = [
    "AsyncMags", "AsyncProcess", "AsyncSandbox", "Busy", "Conflict", "InvalidRequest", "Mags", "MagsError",
    "MockTransport", "NotAuthorized", "NotConfigured", "NotFound", "NotReachable", "Process", "Sandbox", "ServerFailed",
    "TransferFailed", "WaitTimeout", "__version__",
]  # fmt: skip

METHODS = {
    "add_ssh_key", "create_token", "cron_create", "cron_delete", "cron_get", "cron_list", "cron_run", "cron_update",
    "delete_file", "delete_ssh_key", "delete_token", "delete_upload", "delete_workspace", "disable_access",
    "enable_access", "exec", "exec_stream", "export_workspace", "find_job", "get_job", "get_workspace", "health",
    "import_workspace", "iter_file", "list_files", "list_jobs", "list_ssh_keys", "list_tokens", "list_uploads",
    "list_workspaces", "logs", "me", "new", "pool_status", "read_file", "resize", "resize_workspace", "run",
    "run_and_wait", "sandbox", "sleep", "status", "stop", "stream_logs", "stream_output", "sync", "update_job",
    "upload_file", "upload_files", "url", "url_alias_create", "url_alias_delete", "url_alias_list", "usage", "wake",
    "write_file",
}  # fmt: skip

PUBLISHED = {
    "run": "script * name workspace_id base_workspace_id persistent no_sleep ephemeral startup_command environment "
    "file_ids disk_gb no_sync rootfs_type",
    "run_and_wait": "script * timeout poll_interval",
    "status": "request_id",
    "logs": "request_id",
    "list_jobs": "* page page_size",
    "update_job": "request_id * startup_command no_sleep",
    "enable_access": "request_id * port",
    "stop": "name_or_id",
    "resize": "workspace disk_gb * timeout poll_interval",
    "new": "name * persistent base_workspace_id disk_gb timeout poll_interval",
    "find_job": "name_or_id",
    "url": "name_or_id * port",
    "exec": "name_or_id command * timeout",
    "usage": "* window_days",
    "upload_file": "file_path",
    "upload_files": "file_paths",
    "list_workspaces": "",
    "delete_workspace": "workspace_id",
    "sync": "request_id",
    "cron_create": "* name cron_expression script workspace_id environment persistent",
    "cron_list": "",
    "cron_get": "cron_id",
    "cron_update": "cron_id",
    "cron_delete": "cron_id",
    "url_alias_create": "subdomain workspace_id domain",
    "url_alias_list": "",
    "url_alias_delete": "subdomain",
}
"""Methods of magpie-mags 1.3.8: positional arguments, then after `*` those given by name."""


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}


def test_the_package_offers_these_names() -> None:
    assert mags.__all__ == NAMES
    for name in NAMES:
        assert getattr(mags, name) is not None
    assert dir(mags) == NAMES
    with pytest.raises(AttributeError):
        mags.nothing  # noqa: B018


def test_both_clients_offer_these_methods() -> None:
    assert public(Mags) - {"close"} == METHODS
    assert public(AsyncMags) - {"aclose"} == METHODS
    assert public(sandbox.Sandbox) == public(async_sandbox.AsyncSandbox)


@pytest.mark.parametrize("kind", [Mags, AsyncMags])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_clients_arguments_are_taken(kind: type, name: str) -> None:
    positional, _, named = PUBLISHED[name].partition("*")
    signature = inspect.signature(getattr(kind(api_token="t", api_url="http://x"), name))
    taken = list(signature.parameters.values())
    assert [parameter.name for parameter in taken][: len(positional.split())] == positional.split()
    assert {*named.split()} <= {parameter.name for parameter in taken}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_twins_take_the_same_and_say_what_for(name: str) -> None:
    one, other = getattr(Mags, name), getattr(AsyncMags, name)
    assert list(inspect.signature(one).parameters) == list(inspect.signature(other).parameters)
    assert defaults(one) == defaults(other)
    assert one.__doc__ and other.__doc__, f"{name} has no documentation"


def defaults(function: Callable[..., Any]) -> list[Any]:
    return [parameter.default for parameter in inspect.signature(function).parameters.values()]


def test_the_synchronous_half_is_what_the_other_makes_of_it() -> None:
    assert [module.name for module, text in twins.made() if module.read_text() != text] == [], "run ./dev fmt"


def test_what_a_command_imports_is_little() -> None:
    code = (
        "import sys, mags.cli.main, mags.cli.command, mags.cli.commands.run, mags.sdk.wire, mags.sdk.sender;"
        "print([n for n in ('httpx', 'websockets', 'asyncio', 'msgspec', 'dataclasses') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
