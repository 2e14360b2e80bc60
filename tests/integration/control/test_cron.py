"""Scripts at given times: kept, changed, run once a tick, whoever runs them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from mags.control.db import now_ms
from mags.control.lifecycles.ticks import cron_ticks
from mags.control.models import CronJob
from tests.integration.control.conftest import Installation, alone, installation, until
from tests.kit.marks import ONCE

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def create(mags: Installation, **fields: Any) -> dict[str, Any]:
    body = {"name": "cron", "cron_expression": "0 3 * * *", "script": "true", **fields}
    answer = await mags.api.post("/mags-cron", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert isinstance(made, dict)
    return made


async def make_due(mags: Installation, cron_id: str, ago_ms: int = 1000) -> None:
    async with mags.world.db.write() as session:
        await session.execute(update(CronJob).where(CronJob.id == cron_id).values(next_ms=now_ms() - ago_ms))


async def get(mags: Installation, cron_id: str) -> dict[str, Any]:
    body = (await mags.api.get(f"/mags-cron/{cron_id}")).json()
    assert isinstance(body, dict)
    return body


async def test_a_cron_job_is_kept_listed_changed_and_removed(mags: Installation) -> None:
    made = await create(mags, name="kept", timezone="Europe/Berlin", environment={"A": "1"}, persistent=True)
    assert (made["enabled"], made["run_count"], made["last_status"]) == (True, 0, None)
    assert made["next_run_at"] is not None
    assert (await get(mags, "kept"))["id"] == made["id"], "a name will do"
    off = (await mags.api.patch(f"/mags-cron/{made['id']}", json={"enabled": False})).json()
    assert (off["enabled"], off["next_run_at"], off["environment"]) == (False, None, {"A": "1"})
    on = (await mags.api.patch(f"/mags-cron/{made['id']}", json={"enabled": True, "script": "false"})).json()
    assert on["next_run_at"] is not None and on["script"] == "false"
    assert (await mags.api.get("/mags-cron")).json()["total"] == 1
    assert (await mags.stranger.get("/mags-cron")).json()["total"] == 0
    for call in (mags.stranger.get, mags.stranger.delete):
        assert (await call(f"/mags-cron/{made['id']}")).status_code == 404
    answer = await mags.api.post("/mags-cron", json={"name": "kept", "cron_expression": "@daily", "script": "x"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert (await mags.api.delete(f"/mags-cron/{made['id']}")).status_code == 200
    assert (await mags.api.get(f"/mags-cron/{made['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("expression", "word"),
    [("61 * * * *", "minute"), ("* 24 * * *", "hour"), ("* * 0 * *", "day of month"), ("* * * 13 *", "month"),
     ("* * * * x", "day of week"), ("* * * *", "five"), ("@often", "@hourly"), ("0 0 31 2 *", "cron_expression")],
)  # fmt: skip
async def test_a_bad_expression_names_the_field(mags: Installation, expression: str, word: str) -> None:
    body = {"name": "bad", "cron_expression": expression, "script": "true"}
    answer = await mags.api.post("/mags-cron", json=body)
    assert answer.status_code == 422 and word in answer.json()["error"], answer.text


async def test_what_no_job_could_have_is_refused(mags: Installation) -> None:
    body = {"name": "bad", "cron_expression": "@daily"}
    for wrong in (
        {"script": "é" * (600 << 10)},
        {"script": ""},
        {"script": "true", "environment": {"A": "x" * (256 << 10)}},
        {"script": "true", "environment": {"A B": "x"}},
    ):
        assert (await mags.api.post("/mags-cron", json={**body, **wrong})).status_code == 422


async def test_a_bad_time_zone_is_refused(mags: Installation) -> None:
    for zone in ("Mars/Olympus", "../etc/passwd", "UTC\u0000", ""):
        body = {"name": "bad", "cron_expression": "@hourly", "script": "true", "timezone": zone}
        assert (await mags.api.post("/mags-cron", json=body)).status_code == 422


async def test_a_due_job_runs_once_and_its_record_says_so(mags: Installation) -> None:
    await mags.host()
    made = await create(mags, name="due", script="exit 3", cron_expression="@hourly", environment={"A": "1"})
    await make_due(mags, made["id"], ago_ms=5 * 3600 * 1000)
    mags.world.kick.set()
    async with asyncio.timeout(60):
        while (body := await get(mags, made["id"]))["last_status"] not in ("completed", "error"):
            await asyncio.sleep(0.02)
    assert (body["run_count"], body["last_status"]) == (1, "error"), "five missed hours are one run"
    job = (await mags.api.get(f"/mags-jobs/{body['last_request_id']}")).json()
    assert (job["exit_code"], job["name"], job["cron_id"]) == (3, "due", made["id"])
    assert body["next_run_at"] > body["last_run_at"]


async def test_a_job_can_be_run_now(mags: Installation) -> None:
    await mags.host()
    made = await create(mags, name="now", enabled=False)
    headers = {"Idempotency-Key": "run-1"}
    first = await mags.api.post(f"/mags-cron/{made['id']}/run", headers=headers)
    again = await mags.api.post(f"/mags-cron/{made['id']}/run", headers=headers)
    assert first.status_code == again.status_code == 202 and first.json() == again.json()
    await mags.reaches(first.json()["request_id"], "completed")
    assert (await get(mags, made["id"]))["run_count"] == 1


async def test_a_tick_that_no_host_takes_is_tried_again(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        made = await create(mags)
        await make_due(mags, made["id"])
        mags.world.kick.set()
        async with asyncio.timeout(60):
            while (body := await get(mags, made["id"]))["last_error"] is None:
                await asyncio.sleep(0.02)
        assert (body["run_count"], body["last_error"]) == (0, "No host has joined yet.")


@ONCE
async def test_two_servers_never_run_one_tick_twice(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url) as one:
        host = await one.host()
        async with installation(tmp_path, one.nats_url, database_url=database_url) as two:
            await until(lambda: two.world.hosts.get("h1") is not None)
            made = [await create(one, name=f"tick-{number}") for number in range(5)]
            for cron in made:
                await make_due(one, cron["id"])
            await asyncio.gather(*(cron_ticks(world) for world in (one.world, two.world) for _ in range(5)))
            for cron in made:
                body = await get(one, cron["id"])
                assert body["run_count"] == 1
                await one.reaches(body["last_request_id"], "completed")
            assert host.count("start") == 5
