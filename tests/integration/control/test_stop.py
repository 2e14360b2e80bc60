"""Stopping: whatever state the job is in, as often as one likes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mags.protocol.errors import Problem
from tests.integration.control.conftest import Installation, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def stop(mags: Installation, reference: str) -> dict[str, Any]:
    answer = await mags.api.post(f"/mags-jobs/{reference}/stop")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert isinstance(body, dict) and body["success"] is True
    return body


async def test_a_running_script_is_ended(mags: Installation) -> None:
    host = await mags.host()
    request_id = await mags.submit("echo begun; sleep 300")
    await mags.reaches(request_id, "running")
    assert (await stop(mags, request_id))["status"] == "completed"
    body = await mags.status(request_id)
    assert (body["status"], body["error"]) == ("completed", None) and body["completed_at"] is not None
    assert body["vm_id"] not in host.machines
    assert (await stop(mags, request_id))["status"] == "completed", "a second time is fine"


async def test_a_finished_job_stays_as_it_is(mags: Installation) -> None:
    await mags.host()
    body = await mags.run("exit 2")
    assert (await stop(mags, body["request_id"]))["status"] == "error"
    assert (await mags.status(body["request_id"])) == body


async def test_a_sandbox_ends_with_its_vm(mags: Installation) -> None:
    host = await mags.host()
    request_id = await mags.submit("sleep infinity", persistent=True, name="sandbox")
    body = await mags.reaches(request_id, "running")
    await stop(mags, "sandbox")
    assert (await mags.status(request_id))["status"] == "completed"
    assert body["vm_id"] not in host.machines


async def test_who_stops_a_sandbox_hears_what_could_not_be_saved(mags: Installation) -> None:
    host = await mags.host()
    await mags.submit("sleep infinity", persistent=True, name="unsaved")
    await mags.reaches("unsaved", "running")
    host.unsaved = "Its last changes are kept on host h1."
    try:
        assert (await stop(mags, "unsaved"))["message"] == f"'unsaved' is stopped. {host.unsaved}"
    finally:
        host.unsaved = ""


async def test_a_waiting_job_is_never_started(mags: Installation) -> None:
    host = await mags.host()
    host.refuse["start"] = Problem("no_capacity", "Full.")
    request_id = await mags.submit("true")
    tried = host.count("start")
    await until(lambda: host.count("start") > tried)
    assert (await stop(mags, request_id))["status"] == "completed"
    del host.refuse["start"]
    assert (await mags.status(request_id))["start_kind"] is None


async def test_a_job_that_is_just_being_started_is_stopped_too(mags: Installation) -> None:
    host = await mags.host()
    host.slow["start"] = 0.6
    try:
        request_id = await mags.submit("sleep 300")
        started = host.count("start")
        await until(lambda: host.count("start") >= started)
        assert (await stop(mags, request_id))["status"] == "completed"
    finally:
        host.slow.clear()
    assert not [vm for vm in host.machines.values() if vm.start.script.job_id == request_id]


async def test_a_job_in_the_queue_of_a_host_is_stopped_at_once(mags: Installation) -> None:
    host = await mags.host()
    gate = mags.world.gate("h1")
    for _ in range(mags.world.settings.starts_per_host):
        await gate.acquire()
    request_id = await mags.submit("true")
    before = host.count("start")
    assert (await stop(mags, request_id))["status"] == "completed"
    for _ in range(mags.world.settings.starts_per_host):
        gate.release()
    await mags.run("true")
    assert host.count("start") == before + 1


async def test_a_run_in_somebody_elses_vm_ends_only_its_script(mags: Installation) -> None:
    host = await mags.host()
    sandbox = await mags.submit("sleep infinity", persistent=True, workspace_id="shared", no_sync=True)
    up = await mags.reaches(sandbox, "running")
    run = await mags.submit("sleep 300", workspace_id="shared", no_sync=True)
    assert (await mags.reaches(run, "running"))["vm_id"] == up["vm_id"]
    assert (await stop(mags, run))["status"] == "completed"
    assert (await mags.status(sandbox))["status"] == "running" and up["vm_id"] in host.machines
    await stop(mags, sandbox)


async def test_a_host_that_is_away_stops_it_when_it_is_back(mags: Installation) -> None:
    host = await mags.host()
    request_id = await mags.submit("sleep 300")
    await mags.reaches(request_id, "running")
    host.refuse["stop"] = Problem("unavailable", "The host restarts.")
    body = await stop(mags, request_id)
    assert body["status"] == "running" and "stopping" in body["message"]
    del host.refuse["stop"]
    assert (await mags.reaches(request_id, "completed"))["error"] is None


async def test_a_vm_that_dies_ends_its_jobs_with_the_reason(mags: Installation) -> None:
    host = await mags.host()
    request_id = await mags.submit("sleep 300", persistent=True)
    body = await mags.reaches(request_id, "running")
    await host.crash(body["vm_id"], "The VM's hypervisor ended unexpectedly.")
    body = await mags.reaches(request_id, "error")
    assert body["error"] in ("The VM's hypervisor ended unexpectedly.", "The script was ended.")


async def test_a_vm_that_ends_by_itself_completes_a_sandbox(mags: Installation) -> None:
    host = await mags.host()
    request_id = await mags.submit("sleep infinity", persistent=True)
    body = await mags.reaches(request_id, "running")
    await host._end(host.machines[body["vm_id"]], "gone", "")
    assert (await mags.reaches(request_id, "completed"))["error"] is None


async def test_many_stops_at_once_are_one(mags: Installation) -> None:
    host = await mags.host()
    request_id = await mags.submit("sleep 300")
    await mags.reaches(request_id, "running")
    bodies = await asyncio.gather(*(stop(mags, request_id) for _ in range(10)))
    assert {body["status"] for body in bodies} == {"completed"}
    vm_id = (await mags.status(request_id))["vm_id"]
    assert [wish.vm_id for verb, wish in host.calls if verb == "stop"].count(vm_id) == 1
