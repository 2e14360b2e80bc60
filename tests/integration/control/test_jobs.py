"""A job's way, from POST to its recorded end, and how jobs are found, listed and changed."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from mags.protocol.errors import Problem
from tests.integration.control.conftest import Installation, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

STATUS_FIELDS = {
    "request_id",
    "name",
    "status",
    "workspace_id",
    "vm_id",
    "host_id",
    "exit_code",
    "error",
    "subdomain",
    "url",
    "persistent",
    "no_sleep",
    "startup_command",
    "created_at",
    "started_at",
    "completed_at",
    "queue_ms",
    "boot_ms",
    "script_duration_ms",
    "total_duration_ms",
    "start_kind",
}


async def test_a_script_runs_and_its_end_is_recorded(mags: Installation) -> None:
    await mags.host()
    body = await mags.run("echo out; echo err >&2; exit 3", name="first")
    assert set(body) == STATUS_FIELDS
    assert (body["status"], body["exit_code"], body["error"]) == ("error", 3, None)
    assert body["name"] == "first" and body["start_kind"] == "pool" and body["host_id"] == "h1"
    assert body["created_at"] <= body["started_at"] <= body["completed_at"]
    logs = (await mags.api.get(f"/mags-jobs/{body['request_id']}/logs")).json()["logs"]
    assert {(entry["stream"], entry["message"], entry["level"]) for entry in logs} == {
        ("stdout", "out", "info"),
        ("stderr", "err", "error"),
    }


async def test_a_job_that_ends_well_is_completed(mags: Installation) -> None:
    await mags.host()
    body = await mags.run("true")
    assert (body["status"], body["exit_code"]) == ("completed", 0)


async def test_the_script_sees_its_environment(mags: Installation) -> None:
    await mags.host()
    body = await mags.run('test "$GREETING" = "a b"', environment={"GREETING": "a b"})
    assert body["status"] == "completed"


async def test_the_host_is_told_what_was_wished(mags: Installation) -> None:
    host = await mags.host()
    await mags.run("true", vcpus=2, memory_mb=256, disk_gb=3, image="debian", timeout=9, name="wished")
    start = next(wish for verb, wish in reversed(host.calls) if verb == "start")
    assert (start.spec.vcpus, start.spec.memory_mb, start.spec.disk_gb, start.spec.image) == (2, 256, 3, "debian")
    assert (start.script.timeout_s, start.keep, start.name) == (9, "job", "wished")


async def test_a_script_by_url_is_fetched_in_the_vm(mags: Installation) -> None:
    host = await mags.host()
    await mags.run("http://example.test/x.sh", type="url")
    start = next(wish for verb, wish in reversed(host.calls) if verb == "start")
    assert (start.script.script, start.script.url) == (None, "http://example.test/x.sh")


async def test_a_persistent_job_runs_on_after_its_script(mags: Installation) -> None:
    await mags.host()
    request_id = await mags.submit("exit 4", persistent=True, name="stays")
    async with asyncio.timeout(60):
        while (body := await mags.status(request_id))["exit_code"] is None:
            await asyncio.sleep(0.01)
    assert (body["status"], body["exit_code"], body["completed_at"]) == ("running", 4, None)


async def test_a_sandbox_that_only_stays_gets_no_script(mags: Installation) -> None:
    host = await mags.host()
    request_id = await mags.submit("sleep infinity", persistent=True)
    body = await mags.reaches(request_id, "running")
    start = next(wish for verb, wish in reversed(host.calls) if verb == "start")
    assert (start.script.script, start.keep) == (None, "stay") and body["vm_id"] == start.vm_id


async def test_a_job_is_found_by_id_then_by_name_and_workspace(mags: Installation) -> None:
    await mags.host()
    up = await mags.submit("sleep 300", persistent=True, name="find-me")
    await mags.reaches(up, "running")
    newer = await mags.run("true", name="find-me")
    assert newer["request_id"] != up
    assert (await mags.status("find-me"))["request_id"] == up, "the one that is up comes first"
    assert (await mags.status(newer["request_id"]))["request_id"] == newer["request_id"]
    placed = await mags.run("true", workspace_id="find-me-ws", no_sync=True)
    assert (await mags.status("find-me-ws"))["request_id"] == placed["request_id"]
    assert (await mags.api.get("/mags-jobs/no-such/status")).status_code == 404
    assert (await mags.api.get(f"/mags-jobs/{uuid.uuid4()}/status")).status_code == 404


async def test_jobs_are_listed_newest_first_in_pages(mags: Installation) -> None:
    await mags.host()
    ids = [(await mags.run("true", name="paged"))["request_id"] for _ in range(3)]
    first = (await mags.api.get("/mags-jobs", params={"name": "paged", "page_size": 2})).json()
    second = (await mags.api.get("/mags-jobs", params={"name": "paged", "page_size": 2, "page": 2})).json()
    assert [job["request_id"] for job in first["jobs"] + second["jobs"]] == ids[::-1]
    assert (first["total"], first["page"], second["page"], second["page_size"]) == (3, 1, 2, 2)
    failed = (await mags.api.get("/mags-jobs", params={"status": "error"})).json()
    assert all(job["status"] == "error" for job in failed["jobs"])


async def test_a_job_can_be_renamed_and_tuned(mags: Installation) -> None:
    host = await mags.host()
    request_id = await mags.submit("sleep infinity", persistent=True, name="tuned")
    await mags.reaches(request_id, "running")
    change = {"name": "tuned-2", "startup_command": "echo up", "no_sleep": True, "idle_timeout": 60, "colour": 1}
    answer = await mags.api.patch(f"/mags-jobs/{request_id}", json=change)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["name"], body["startup_command"], body["no_sleep"]) == ("tuned-2", "echo up", True)
    assert "colour" in body["warnings"][0]
    adjust = next(wish for verb, wish in reversed(host.calls) if verb == "adjust")
    assert (adjust.no_sleep, adjust.startup_command, adjust.idle_timeout_s) == (True, "echo up", 60)
    host.refuse["adjust"] = Problem("unavailable", "Not now.")
    try:
        assert (await mags.api.patch(f"/mags-jobs/{request_id}", json={"no_sleep": False})).status_code == 503
    finally:
        host.refuse.clear()
    assert (await mags.status(request_id))["no_sleep"] is True, "recorded is what the host has heard"
    over = await mags.run("true", name="over")
    assert (await mags.api.patch("/mags-jobs/over", json={"startup_command": "x"})).status_code == 409
    assert over["status"] == "completed"


async def test_what_is_changed_while_a_vm_starts_is_told_to_it(mags: Installation) -> None:
    host = await mags.host()
    host.slow["start"] = 1.0
    try:
        request_id = await mags.submit("sleep infinity", persistent=True, name="tuned-early")
        await until(lambda: any(verb == "start" and wish.name == "tuned-early" for verb, wish in host.calls))
        answer = await mags.api.patch(f"/mags-jobs/{request_id}", json={"no_sleep": True, "startup_command": "x"})
        assert answer.status_code == 200
    finally:
        host.slow.clear()
    vm_id = (await mags.reaches(request_id, "running"))["vm_id"]
    await until(lambda: any(verb == "adjust" and wish.vm_id == vm_id for verb, wish in host.calls))
    adjust = next(wish for verb, wish in reversed(host.calls) if verb == "adjust")
    assert (adjust.no_sleep, adjust.startup_command) == (True, "x")
    await mags.api.post(f"/mags-jobs/{request_id}/stop")


async def test_a_persistent_job_that_joins_a_vm_brings_its_wishes(mags: Installation) -> None:
    host = await mags.host(storage="ok")
    await mags.run("true", workspace_id="joined", no_sync=True)
    wish = {"persistent": True, "no_sleep": True, "startup_command": "echo up", "idle_timeout": 77}
    request_id = await mags.submit("true", workspace_id="joined", no_sync=True, **wish)
    await mags.reaches(request_id, "running")
    run = next(wish for verb, wish in reversed(host.calls) if verb == "run")
    assert run.keep == "stay"
    assert (run.adjust.no_sleep, run.adjust.startup_command, run.adjust.idle_timeout_s) == (True, "echo up", 77)
    await mags.run("true", workspace_id="joined", no_sync=True)
    run = next(wish for verb, wish in reversed(host.calls) if verb == "run")
    assert (run.keep, run.adjust) == (None, None)
    await mags.api.post(f"/mags-jobs/{request_id}/stop")


async def test_an_idempotency_key_makes_one_job(mags: Installation) -> None:
    host = await mags.host()
    before = host.count("start")
    headers = {"Idempotency-Key": "key-1"}
    answers = await asyncio.gather(
        *(mags.api.post("/mags-jobs", json={"script": "echo once"}, headers=headers) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["request_id"] for answer in answers}) == 1
    other = await mags.api.post("/mags-jobs", json={"script": "echo other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    await mags.reaches(answers[0].json()["request_id"], "completed")
    assert host.count("start") == before + 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "script"),
    ({"script": 5}, "script"),
    ({"script": "  "}, "script"),
    ({"script": "x" * (1 << 20) + "x"}, "script"),
    ({"script": "a\u0000b"}, "U+0000"),
    ({"script": "true", "type": "file"}, "type"),
    ({"script": "true", "type": "url"}, "http"),
    ({"script": "true", "workspace_id": "../x"}, "workspace_id"),
    ({"script": "true", "workspace_id": ""}, "workspace_id"),
    ({"script": "true", "name": "/"}, "name"),
    ({"script": "true", "persistent": "yes"}, "persistent"),
    ({"script": "true", "no_sleep": True}, "no_sleep"),
    ({"script": "true", "ephemeral": True, "workspace_id": "w"}, "ephemeral"),
    ({"script": "true", "ephemeral": True, "persistent": True}, "ephemeral"),
    ({"script": "true", "environment": {"A": 1}}, "environment"),
    ({"script": "true", "environment": {"1A": "x"}}, "environment"),
    ({"script": "true", "environment": ["A"]}, "environment"),
    ({"script": "true", "disk_gb": 0}, "disk_gb"),
    ({"script": "true", "disk_gb": 101}, "disk_gb"),
    ({"script": "true", "vcpus": 60}, "vcpus"),
    ({"script": "true", "memory_mb": 1 << 20}, "memory_mb"),
    ({"script": "true", "timeout": 0}, "timeout"),
    ({"script": "true", "timeout": 1.5}, "timeout"),
    ({"script": "true", "port": 70000}, "port"),
    ({"script": "true", "url": True}, "url"),
    ({"script": "true", "file_ids": ["nope"]}, "file_ids"),
    ({"script": "true", "image": "UPPER"}, "image"),
]


@pytest.mark.parametrize(("body", "word"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_can_not_be_is_refused(mags: Installation, body: dict[str, Any], word: str) -> None:
    await mags.host()
    answer = await mags.api.post("/mags-jobs", json=body)
    assert answer.status_code == 422, answer.text
    said = answer.json()
    assert set(said) == {"error", "code", "details"} and said["code"] == "invalid"
    assert word in said["error"]


async def test_unknown_fields_are_warned_of(mags: Installation) -> None:
    await mags.host()
    answer = await mags.api.post("/mags-jobs", json={"script": "true", "colour": "red"})
    assert answer.status_code == 202 and "colour" in answer.json()["warnings"][0]


async def test_a_body_that_is_no_json_is_malformed(mags: Installation) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"{", b"\xff", b"[" * 100_000, b"[]", b"3", b""):
        answer = await mags.api.post("/mags-jobs", content=body, headers=headers)
        assert answer.status_code in (400, 422), body[:10]
        assert set(answer.json()) == {"error", "code", "details"}


async def test_a_large_script_runs_and_a_larger_body_is_refused(mags: Installation) -> None:
    await mags.host()
    script = "exit 7 #".ljust(1 << 20, "x")
    assert (await mags.run(script))["exit_code"] == 7
    answer = await mags.api.post("/mags-jobs", content=b" " * (9 << 20), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")

    async def pieces() -> Any:
        for _ in range(10):
            yield b" " * (1 << 20)

    answer = await mags.api.post("/mags-jobs", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


async def test_without_a_good_token_nothing_is_said(mags: Installation) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer nope"}, {"Authorization": "Basic x"}):
        answer = await mags.api.get("/mags-jobs", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_nobody_sees_what_is_somebody_elses(mags: Installation) -> None:
    await mags.host()
    request_id = await mags.submit("sleep infinity", persistent=True, name="mine", workspace_id="mine-ws", no_sync=True)
    await mags.reaches(request_id, "running")
    base = f"/mags-jobs/{request_id}"
    api = mags.stranger
    calls = [
        api.get(f"{base}/status"),
        api.get(base),
        api.get(f"{base}/logs"),
        api.get(f"{base}/logs?follow=1"),
        api.patch(base, json={"name": "x"}),
        api.post(f"{base}/stop"),
        api.post(f"{base}/exec", json={"command": "id"}),
        api.post(f"{base}/sync"),
        api.post(f"{base}/sleep"),
        api.post(f"{base}/wake"),
        api.post(f"{base}/access", json={"port": 8080}),
        api.delete(f"{base}/access?port=8080"),
        api.get(f"{base}/files?path=/x"),
        api.put(f"{base}/files?path=/x", content=b"x"),
        api.delete(f"{base}/files?path=/x"),
        api.get(f"{base}/files/list"),
        api.get("/mags-jobs/mine/status"),
        api.get("/mags-jobs/mine-ws/status"),
        api.get("/mags-workspaces/mine-ws"),
        api.delete("/mags-workspaces/mine-ws"),
    ]
    for call in calls:
        answer = await call
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), answer.request.url
    assert (await api.get("/mags-jobs")).json()["total"] == 0
    assert (await api.get("/mags-workspaces")).json()["total"] == 0
    assert (await mags.status(request_id))["status"] == "running"


async def test_unknown_addresses_and_methods_answer_in_the_same_form(mags: Installation) -> None:
    answer = await mags.api.get("/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = await mags.api.put("/mags-jobs")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    answer = await mags.api.get("/mags-jobs/a%00b/status")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
