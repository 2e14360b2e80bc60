from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mags.sdk.calls import files, jobs
from mags.sdk.calls.call import Call
from mags.sdk.errors import MagsError


def sent(call: Call[Any]) -> tuple[str, str, dict[str, list[str]], Any]:
    request = call.request("token", "agent")
    parts = urlsplit(request.target)
    body = json.loads(request.body) if isinstance(request.body, bytes) and call.json is not None else None
    return request.method, parts.path, parse_qs(parts.query), body


def test_what_was_not_given_is_not_sent() -> None:
    assert sent(jobs.run("echo hi")) == (
        "POST", "/api/v1/mags-jobs", {}, {"script": "echo hi", "type": "inline", "persistent": False}
    )  # fmt: skip


def test_what_was_given_is_sent() -> None:
    body = sent(
        jobs.run(
            "http://x/y.sh", type="url", name="n", workspace_id="w", base_workspace_id="b", persistent=True,
            no_sleep=True, no_sync=True, startup_command="s", environment={"K": "V"}, file_ids=["f"], disk_gb=5,
            vcpus=2,
            memory_mb=1024, image="debian", rootfs_type="standard", timeout=9, port=80, url=True, idle_timeout=60,
        )
    )[3]  # fmt: skip
    assert body == {
        "script": "http://x/y.sh", "type": "url", "name": "n", "workspace_id": "w", "base_workspace_id": "b",
        "persistent": True, "no_sleep": True, "no_sync": True, "startup_command": "s", "environment": {"K": "V"},
        "file_ids": ["f"], "disk_gb": 5, "vcpus": 2, "memory_mb": 1024, "image": "debian", "rootfs_type": "standard",
        "timeout": 9, "port": 80, "url": True, "idle_timeout": 60,
    }  # fmt: skip


@pytest.mark.parametrize(
    "wish",
    [{"ephemeral": True, "workspace_id": "w"}, {"ephemeral": True, "persistent": True}, {"no_sleep": True}],
)
def test_what_excludes_each_other_is_refused_before_it_is_sent(wish: dict[str, Any]) -> None:
    with pytest.raises(MagsError) as raised:
        jobs.run("true", **wish)
    assert raised.value.status_code is None


def test_names_are_quoted_in_paths() -> None:
    assert sent(jobs.status("a/../b c?d"))[1] == "/api/v1/mags-jobs/a%2F..%2Fb%20c%3Fd/status"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_mean_another_path_is_refused(name: str) -> None:
    with pytest.raises(MagsError, match="name"):
        jobs.status(name)


def test_what_creates_something_carries_a_key_and_each_call_its_own() -> None:
    call = jobs.run("true")
    first, second = (call.request("t", "a").headers["Idempotency-Key"] for _ in range(2))
    assert first != second
    assert "Idempotency-Key" not in jobs.exec("x", "true").request("t", "a").headers
    assert "Idempotency-Key" not in jobs.status("x").request("t", "a").headers


def test_false_and_nothing_are_different_in_a_change() -> None:
    assert sent(jobs.update_job("j", no_sleep=False)) == ("PATCH", "/api/v1/mags-jobs/j", {}, {"no_sleep": False})
    assert sent(jobs.update_job("j", startup_command=""))[3] == {"startup_command": ""}


def test_files_carry_their_mode_in_octal() -> None:
    method, path, query, _ = sent(files.write_file("vm", "/root/a b", b"x", length=1, mode=0o755))
    assert (method, path, query) == ("PUT", "/api/v1/mags-jobs/vm/files", {"path": ["/root/a b"], "mode": ["755"]})


def test_a_stream_is_asked_for_from_where_it_stopped() -> None:
    assert sent(jobs.frames("j", {1: 0, 2: 0, 3: 0}))[2] == {"follow": ["1"]}
    assert sent(jobs.frames("j", {1: 7, 2: 0, 3: 2}))[2] == {
        "follow": ["1"], "stdout_offset": ["7"], "system_offset": ["2"]
    }  # fmt: skip
    assert jobs.events("j", "1:4").request("t", "a").headers["Last-Event-ID"] == "1:4"
    assert "Last-Event-ID" not in jobs.events("j", "").request("t", "a").headers
