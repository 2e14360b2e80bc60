"""Many at once, refusals, and answers that never came: each script is started exactly once, none is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mags.protocol.errors import Problem
from tests.integration.control.conftest import Installation, alone, until
from tests.kit.marks import ONCE

pytestmark = pytest.mark.asyncio(loop_scope="module")


@ONCE
async def test_two_hundred_submissions_at_once_all_run_once(mags: Installation) -> None:
    host = await mags.host()
    before = host.count("start")
    answers = await asyncio.gather(
        *(mags.api.post("/mags-jobs", json={"script": ":", "name": "burst"}) for _ in range(200))
    )
    assert {answer.status_code for answer in answers} == {202}
    ids = {answer.json()["request_id"] for answer in answers}
    assert len(ids) == 200

    async with asyncio.timeout(120):
        while (await mags.api.get("/mags-jobs", params={"name": "burst", "status": "completed"})).json()["total"] < 200:
            await asyncio.sleep(0.05)
    started = [wish.script.job_id for verb, wish in host.calls if verb == "start"]
    assert len(started) == before + 200 and ids <= set(started)


async def test_without_any_host_a_job_is_refused_with_when_to_come_back(tmp_path: Path) -> None:
    async with alone(tmp_path) as empty:
        answer = await empty.api.post("/mags-jobs", json={"script": "true"})
        assert (answer.status_code, answer.json()["code"]) == (503, "no_capacity")
        assert int(answer.headers["retry-after"]) > 0
        assert (await empty.api.get("/mags-jobs")).json()["total"] == 0


async def test_a_host_that_takes_nothing_says_why(mags: Installation) -> None:
    host = await mags.host()
    host.presence.accepting, host.presence.reason = False, "The disk is full."
    await host.announce()
    try:
        view = mags.world.hosts.get("h1")
        await until(lambda: view is not None and mags.world.hosts.get("h1").presence.accepting is False)  # type: ignore[union-attr]
        answer = await mags.api.post("/mags-jobs", json={"script": "true"})
        assert (answer.status_code, answer.json()["error"]) == (503, "The disk is full.")
    finally:
        host.presence.accepting, host.presence.reason = True, ""
        await host.announce()
        await until(lambda: mags.world.hosts.get("h1").presence.accepting)  # type: ignore[union-attr]


async def test_a_full_host_makes_jobs_wait_not_fail(mags: Installation) -> None:
    host = await mags.host()
    host.refuse["start"] = Problem("no_capacity", "The memory is used up.", retry_after=1)
    request_id = await mags.submit("true")
    tried = host.count("start")
    await until(lambda: host.count("start") > tried)
    assert (await mags.status(request_id))["status"] == "pending"
    del host.refuse["start"]
    assert (await mags.reaches(request_id, "completed", "error"))["status"] == "completed"


async def test_a_host_that_can_not_at_all_ends_the_job_with_its_sentence(mags: Installation) -> None:
    host = await mags.host()
    host.refuse["start"] = Problem("not_found", "There is no image 'nope' here.")
    try:
        body = await mags.run("true", image="nope")
    finally:
        del host.refuse["start"]
    assert (body["status"], body["error"], body["vm_id"]) == ("error", "There is no image 'nope' here.", None)
    end = await mags.api.get(
        f"/mags-jobs/{body['request_id']}/logs?follow=1", headers={"Accept": "application/vnd.mags.frames"}
    )
    assert b"There is no image" in end.content, "who follows it hears of the end"


@ONCE
async def test_an_answer_that_never_came_is_asked_for_again_without_a_second_run(tmp_path: Path) -> None:
    async with alone(tmp_path, start_timeout_s=0.5) as mags:
        host = await mags.host("h-mute")
        host.mute.add("start")
        request_id = await mags.submit(f"echo ran >> {tmp_path}/ran; sleep 3")
        await until(lambda: host.count("start") >= 2)
        host.mute.clear()
        assert (await mags.reaches(request_id, "completed", "error"))["status"] == "completed"
        assert (tmp_path / "ran").read_text() == "ran\n"


async def test_an_end_reported_before_the_answer_is_not_overwritten(tmp_path: Path) -> None:
    async with alone(tmp_path, start_timeout_s=0.5) as mags:
        host = await mags.host("h-late")
        host.mute.add("start")
        request_id = await mags.submit("exit 5")
        body = await mags.reaches(request_id, "completed", "error")
        assert body["exit_code"] == 5
        assert body["vm_id"] and body["host_id"] == "h-late" and body["start_kind"] == "pool"
        assert body["boot_ms"] is not None and body["started_at"] is not None
        host.mute.clear()
        await until(lambda: host.count("start") >= 1)
        body = await mags.status(request_id)
        assert (body["status"], body["exit_code"], body["error"]) == ("error", 5, None)


async def test_more_jobs_than_may_wait_are_refused(tmp_path: Path) -> None:
    async with alone(tmp_path, max_pending=2, max_vms=4) as mags:
        host = await mags.host("h-small")
        host.refuse["start"] = Problem("no_capacity", "Full.")
        for _ in range(2):
            await mags.submit("true")
        answer = await mags.api.post("/mags-jobs", json={"script": "true"})
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert answer.headers["retry-after"] == "5"


async def test_a_run_in_a_vm_that_is_there_needs_no_room_for_another(tmp_path: Path) -> None:
    async with alone(tmp_path, max_vms=1) as mags:
        await mags.host("h-one")
        first = await mags.run("true", workspace_id="w", no_sync=True)
        answer = await mags.api.post("/mags-jobs", json={"script": "true"})
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        again = await mags.run("true", workspace_id="w", no_sync=True)
        assert again["status"] == "completed" and again["vm_id"] == first["vm_id"]


async def test_a_job_that_no_host_takes_ends_at_last(tmp_path: Path) -> None:
    async with alone(tmp_path, queue_timeout_s=0.5) as mags:
        host = await mags.host("h-never")
        request_id = await mags.submit("sleep 0", image="x")
        await mags.reaches(request_id, "completed")
        host.refuse["start"] = Problem("no_capacity", "Full.")
        request_id = await mags.submit("true")
        await until(lambda: host.count("start") >= 2)
        host.presence.accepting = False
        await host.announce()
        body = await mags.reaches(request_id, "error")
        assert "No host could take it within 0.5 s" in body["error"]


async def test_the_least_reserved_host_is_chosen_and_another_one_when_it_refuses(tmp_path: Path) -> None:
    async with alone(tmp_path) as mags:
        first, second = await mags.host("ha"), await mags.host("hb")
        one = await mags.reaches(await mags.submit("sleep infinity", persistent=True), "running")
        two = await mags.reaches(await mags.submit("sleep infinity", persistent=True), "running")
        assert {one["host_id"], two["host_id"]} == {"ha", "hb"}
        first.refuse["start"] = Problem("no_capacity", "Full.")
        second.refuse["start"] = Problem("no_capacity", "Full.")
        request_id = await mags.submit("true")
        await until(lambda: first.count("start") + second.count("start") >= 4)
        del second.refuse["start"]
        assert (await mags.reaches(request_id, "completed"))["host_id"] == "hb"
