"""What the commands print, against golden files (MAGS_UPDATE_GOLDEN=1 writes them)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.cli.conftest import JOB, Mags, Outcome

CRON = {
    "id": "c1", "name": "nightly", "cron_expression": "0 3 * * *", "script": "true", "workspace_id": "project",
    "environment": {}, "persistent": False, "enabled": True, "timezone": "UTC",
    "next_run_at": "2026-02-01T03:00:00.000Z", "last_run_at": "2026-01-31T03:00:00.000Z", "last_request_id": "r",
    "last_status": "completed", "run_count": 4,
}  # fmt: skip
WORKSPACE = {
    "workspace_id": "project", "created_at": "2026-01-01T00:00:00.000Z", "last_used_at": "2026-01-31T11:00:00.000Z",
    "last_synced_at": None, "size_bytes": 123456789, "disk_gb": 2, "base_workspace_id": None, "job": None,
}  # fmt: skip
POOL = {
    "idle_vms": 4, "busy_vms": 1, "sleeping_vms": 2, "parked_vms": 0, "total_vms": 7, "min_pool_size": 4,
    "max_pool_size": 1000,
    "hosts": [{"host_id": "host-1", "status": "live", "idle_vms": 4, "busy_vms": 1, "parked_vms": 0, "sleeping_vms": 2,
               "accelerator": "tcg", "free_memory_mb": 20000, "reason": "", "storage": "ok"},
              {"host_id": "host-2", "status": "live", "idle_vms": 0, "busy_vms": 0, "parked_vms": 0, "sleeping_vms": 0,
               "accelerator": "kvm", "free_memory_mb": 100, "reason": "The disk is full.",
               "storage": "The object store refuses the key."}],
}  # fmt: skip
LOGS = {
    "logs": [
        {"timestamp": "2026-01-31T12:00:00.100Z", "level": "info", "message": "one", "stream": "stdout"},
        {"timestamp": "2026-01-31T12:00:00.200Z", "level": "error", "message": "bad", "stream": "stderr"},
    ]
}
FAILED = {**JOB, "name": None, "status": "error", "exit_code": None}
PAGE = {"jobs": [JOB, FAILED], "total": 30, "page": 1, "page_size": 20}
TOKEN = {
    "id": "t1",
    "name": "laptop",
    "created_at": "2026-01-01T00:00:00.000Z",
    "last_used_at": None,
    "expires_at": None,
}
TOKENS: dict[str, Any] = {"tokens": [TOKEN], "total": 1}
KEYS: dict[str, Any] = {
    "ssh_keys": [{"id": "k1", "name": "laptop", "fingerprint": "SHA256:abc", "created_at": None}],
    "total": 1,
}
USAGE = {
    "window_days": 30, "total_jobs": 12, "completed_jobs": 10, "failed_jobs": 2, "running_jobs": 0,
    "vm_seconds": 4000.5, "cpu_seconds": 61.2, "storage_bytes": 5 << 30, "by_day": [],
}  # fmt: skip

CASES: dict[str, tuple[list[str], Any]] = {
    "status": (["status", "nightly"], JOB),
    "status-sleeping": (
        ["status", "dev"],
        {
            **JOB,
            "status": "sleeping",
            "exit_code": None,
            "vm_reason": "The VM can't wake now. The memory of host h1 is"
            " used up (40 MB free, 96 MB needed, 1024 MB are kept free): stop some VMs, or put them to sleep.",
            "removed_at": "2026-02-07T12:00:00.000Z",
        },
    ),
    "status-failed": (["status", "nightly"], {**JOB, "status": "error", "exit_code": None, "error": "Its VM died."}),
    "status-server": (["status", "--server"], {"status": "ok", "version": "0.1.0"}),
    "list": (["list"], PAGE),
    "list-empty": (["list"], {"jobs": [], "total": 0, "page": 1, "page_size": 20}),
    "list-quiet": (["list", "-q"], PAGE),
    "logs": (["logs", "nightly"], LOGS),
    "logs-timestamps": (["logs", "-t", "nightly"], LOGS),
    "stop": (["stop", "nightly", "other"], {}),
    "sleep": (["sleep", "dev"], {}),
    "wake": (["wake", "dev"], {}),
    "sync": (["sync", "dev"], {"synced_at": "2026-01-31T12:00:00.000Z", "bytes": 1 << 20, "duration_ms": 321}),
    "resize": (["resize", "project", "5"], {**WORKSPACE, "disk_gb": 5}),
    "set": (["set", "dev", "--no-sleep"], JOB),
    "set-nothing": (["set", "dev"], JOB),
    "pool": (["pool"], POOL),
    "pool-empty": (["pool"], {**POOL, "hosts": []}),
    "usage": (["usage"], USAGE),
    "whoami": (["whoami"], {"id": "u1", "name": "admin"}),
    "workspace-list": (["workspace", "list"], {"workspaces": [WORKSPACE], "total": 1}),
    "workspace-list-empty": (["workspace", "list"], {"workspaces": [], "total": 0}),
    "workspace-show": (["workspace", "show", "project"], WORKSPACE),
    "workspace-delete": (["workspace", "delete", "-y", "project"], {}),
    "workspace-delete-unasked": (["workspace", "delete", "project"], {}),
    "cron-add": (["cron", "add", "nightly", "0 3 * * *", "true"], CRON),
    "cron-list": (["cron", "list"], {"cron_jobs": [CRON, {**CRON, "enabled": False, "last_run_at": None}], "total": 2}),
    "cron-disable": (["cron", "disable", "nightly"], CRON),
    "cron-unknown": (["cron", "run", "none"], (404, {"error": "There is no cron job 'none'.", "code": "not_found"})),
    "token-list": (["token", "list"], TOKENS),
    "token-create": (["token", "create", "ci"], {**TOKEN, "token": "mags_secret"}),
    "token-lost": (["token", "create", "ci"], {**TOKEN, "token": None}),
    "stop-away": (
        ["stop", "nightly"],
        {"status": "running", "message": "'nightly' is stopping; its host can't be reached now."},
    ),
    "token-revoke": (["token", "revoke", "laptop"], TOKENS),
    "ssh-key-list": (["ssh-key", "list"], KEYS),
    "ssh-key-add": (["ssh-key", "add", "ssh-ed25519 AAAA me"], KEYS["ssh_keys"][0]),
    "url": (["url", "dev", "3000"], {"success": True, "url": "http://abc.apps.localhost:4281", "subdomain": "abc"}),
    "url-private": (
        ["url", "dev", "--private"],
        {
            "url": "http://abc.apps.localhost:4281",
            "signed_url": "http://abc.apps.localhost:4281/?mags_key=9.x",
            "alias_urls": ["http://shop.apps.localhost:4281/?mags_key=9.x"],
        },
    ),
    "url-close": (["url", "dev", "--close"], {}),
    "url-bad-port": (["url", "dev", "http"], {}),
    "url-alias-add": (["url", "alias", "add", "shop", "project"], {"url": "http://shop.apps.localhost:4281"}),
    "url-alias-list": (
        ["url", "alias", "list"],
        {"aliases": [{"id": "a", "subdomain": "shop", "workspace_id": "project", "url": "http://shop.x"}], "total": 1},
    ),
    "url-alias-remove": (["url", "alias", "remove", "shop"], {}),
    "url-alias-wrong": (["url", "alias", "shop"], {}),
    "new": (["new", "dev"], {**JOB, "status": "running"}),
    "new-failed": (["new", "dev"], {**JOB, "status": "error", "error": "There is no image 'x'"}),
}


@pytest.fixture(autouse=True)
def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 1, 31, 13, 0, tzinfo=UTC)

    monkeypatch.setattr("mags.cli.times.datetime", Clock)


@pytest.mark.parametrize("name", CASES)
def test_the_output_is_as_in_the_golden_file(mags: Mags, golden: Callable[[str, Outcome], None], name: str) -> None:
    words, answer = CASES[name]
    golden(name, mags(*words, answer=answer))


@pytest.mark.parametrize("name", ["status", "list", "logs", "sync", "resize", "set", "pool", "usage", "whoami", "new",
                                  "workspace-list", "workspace-show", "cron-add", "cron-list", "token-list",
                                  "token-create", "ssh-key-list", "ssh-key-add", "url", "url-alias-add",
                                  "url-alias-list"])  # fmt: skip
def test_json_is_what_the_server_said(mags: Mags, name: str) -> None:
    words, answer = CASES[name]
    outcome = mags(*words, "--json", answer=answer)
    found = json.loads(outcome.out)
    assert outcome.status == 0
    assert found == answer or {key: found[key] for key in answer} == answer


def test_a_terminal_gets_colours_and_nobody_else(mags: Mags, monkeypatch: pytest.MonkeyPatch) -> None:
    words, answer = CASES["list"]
    assert "\x1b" not in mags(*words, answer=answer).out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1mJOB" in mags(*words, answer=answer).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in mags(*words, answer=answer).out
