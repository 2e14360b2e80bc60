"""Tokens, their scopes and ends; SSH keys; use; health."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from mags.control.db import now_ms
from mags.control.http import callers
from mags.control.models import Token, Vm
from mags.kit.clock import iso
from tests.integration.control.conftest import TOKEN, Installation, alone, client

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


async def token(mags: Installation, **fields: Any) -> dict[str, Any]:
    answer = await mags.api.post("/tokens", json=fields)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert isinstance(body, dict)
    return body


async def test_one_sees_who_one_is(mags: Installation) -> None:
    body = (await mags.api.get("/me")).json()
    assert (body["name"], body["max_vcpus"]) == ("admin", 8)
    assert (await mags.stranger.get("/me")).json()["name"] == "stranger"


async def test_a_token_is_shown_once_and_kept_as_a_hash(mags: Installation) -> None:
    made = await token(mags, name="ci")
    secret = made["token"]
    assert secret.startswith(made["prefix"])
    async with client(mags.url, secret) as api:
        assert (await api.get("/me")).json()["name"] == "admin"
        listed = (await api.get("/tokens")).json()["tokens"]
    assert secret not in str(listed)
    row = next(row for row in listed if row["id"] == made["id"])
    assert row["last_used_at"] is not None
    async with mags.world.db.read() as session:
        kept = (await session.execute(select(Token).where(Token.id == made["id"]))).scalar_one()
    assert secret not in str(vars(kept))


async def test_tokens_come_whole_or_in_pages(mags: Installation) -> None:
    made = [await token(mags, name=f"page {number}") for number in range(3)]
    whole = (await mags.api.get("/tokens")).json()
    assert whole["total"] == len(whole["tokens"]) and (whole["page"], whole["page_size"]) == (1, 10_000)
    ids = [row["id"] for row in whole["tokens"]]
    assert ids[-3:] == [one["id"] for one in made]

    pages = [(await mags.api.get("/tokens", params={"page": n + 1, "page_size": 2})).json() for n in range(len(ids))]
    assert [row["id"] for page in pages for row in page["tokens"]] == ids
    assert {(page["total"], page["page_size"]) for page in pages} == {(len(ids), 2)}
    for wrong in ({"page": 0}, {"page_size": 0}, {"page_size": 10_001}):
        assert (await mags.api.get("/tokens", params=wrong)).status_code == 422


async def test_a_revoked_token_is_void_at_once(mags: Installation) -> None:
    made = await token(mags, name="short")
    async with client(mags.url, made["token"]) as api:
        assert (await api.get("/me")).status_code == 200
        assert (await mags.api.delete(f"/tokens/{made['id']}")).status_code == 200
        assert (await api.get("/me")).status_code == 401
    assert (await mags.api.delete(f"/tokens/{made['id']}")).status_code == 404
    assert (await mags.stranger.delete(f"/tokens/{made['id']}")).status_code == 404


async def test_a_token_ends_by_itself(mags: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "REMEMBERED", 0.3)
    assert (await mags.api.post("/tokens", json={"expires_at": "2001-01-01T00:00:00Z"})).status_code == 422
    assert (await mags.api.post("/tokens", json={"expires_at": "soon"})).status_code == 422
    made = await token(mags, name="ending", expires_at="2999-01-01T00:00:00Z")
    async with client(mags.url, made["token"]) as api:
        assert (await api.get("/me")).status_code == 200
        async with mags.world.db.write() as session:
            row = await session.get(Token, made["id"])
            assert row is not None
            row.expires_ms = 1
        async with asyncio.timeout(60):  # it is remembered for a moment
            while (await api.get("/me")).status_code != 401:
                await asyncio.sleep(0.2)


async def test_scopes_bound_what_a_token_may(mags: Installation) -> None:
    await mags.host()
    made = await token(mags, name="reader", scopes=["read"])
    async with client(mags.url, made["token"]) as api:
        assert (await api.get("/mags-jobs")).status_code == 200
        for answer in (
            await api.post("/mags-jobs", json={"script": "true"}),
            await api.post("/tokens", json={}),
            await api.delete("/tokens/x"),
            await api.post("/mags-jobs/x/exec", json={"command": "id"}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    writer = await token(mags, name="writer", scopes=["tokens", "read"])
    async with client(mags.url, writer["token"]) as api:
        answer = await api.post("/tokens", json={"scopes": ["write"]})
        assert answer.status_code == 422, "nobody gives away what they lack"
    assert (await mags.api.post("/tokens", json={"scopes": ["all"]})).status_code == 422


async def test_an_idempotent_token_is_made_once_and_its_secret_not_kept(mags: Installation) -> None:
    headers = {"Idempotency-Key": "token-1"}
    first = (await mags.api.post("/tokens", json={"name": "once"}, headers=headers)).json()
    second = (await mags.api.post("/tokens", json={"name": "once"}, headers=headers)).json()
    assert first["id"] == second["id"] and first["token"] and second["token"] is None


async def test_ssh_keys_are_kept_by_fingerprint(mags: Installation) -> None:
    made = (await mags.api.post("/ssh-keys", json={"public_key": f"{KEY} me@laptop\n"})).json()
    assert made["name"] == "me@laptop" and made["fingerprint"].startswith("SHA256:")
    again = (await mags.api.post("/ssh-keys", json={"public_key": KEY, "name": "same"})).json()
    assert again["id"] == made["id"]
    assert (await mags.api.get("/ssh-keys")).json()["total"] == 1
    assert (await mags.stranger.get("/ssh-keys")).json()["total"] == 0
    assert (await mags.stranger.delete(f"/ssh-keys/{made['id']}")).status_code == 404
    assert (await mags.api.delete(f"/ssh-keys/{made['id']}")).status_code == 200
    for wrong in ("", "hello", "ssh-ed25519 AAAA", f"{KEY}\n{KEY}", "ssh-rsa !!!"):
        answer = await mags.api.post("/ssh-keys", json={"public_key": wrong})
        assert answer.status_code == 422, wrong


async def test_use_is_summed_and_by_day(mags: Installation) -> None:
    await mags.host()
    before = (await mags.api.get("/mags-jobs/usage")).json()
    await mags.run("true")
    await mags.run("exit 1")
    body = (await mags.api.get("/mags-jobs/usage?window_days=7")).json()
    assert body["window_days"] == 7
    assert body["total_jobs"] == before["total_jobs"] + 2
    assert body["failed_jobs"] == before["failed_jobs"] + 1
    assert sum(day["jobs"] for day in body["by_day"]) == body["total_jobs"]
    assert (await mags.stranger.get("/mags-jobs/usage")).json()["total_jobs"] == 0


async def test_a_vms_time_counts_by_the_day_also_when_it_began_before_the_window(mags: Installation) -> None:
    await mags.host()
    before = (await mags.api.get("/mags-jobs/usage?window_days=2")).json()
    request_id = await mags.submit("sleep infinity", persistent=True)
    vm_id = (await mags.reaches(request_id, "running"))["vm_id"]
    day = 24 * 3600
    async with mags.world.db.write() as session:
        await session.execute(update(Vm).where(Vm.id == vm_id).values(started_ms=now_ms() - 10 * day * 1000))
    body = (await mags.api.get("/mags-jobs/usage?window_days=2")).json()
    assert 2 * day - 3 <= body["vm_seconds"] - before["vm_seconds"] < 2 * day + 3600
    assert [one["vm_seconds"] for one in body["by_day"]][-2] >= day
    assert sum(one["vm_seconds"] for one in body["by_day"]) == body["vm_seconds"]
    await mags.api.post(f"/mags-jobs/{request_id}/stop")


async def test_a_window_is_some_days(mags: Installation) -> None:
    assert (await mags.api.get("/mags-jobs/usage?window_days=0")).status_code == 422


async def test_a_key_opens_the_sandboxes_of_one_user(mags: Installation) -> None:
    made = (await mags.api.post("/ssh-keys", json={"public_key": KEY})).json()
    answer = await mags.stranger.post("/ssh-keys", json={"public_key": KEY})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    await mags.api.delete(f"/ssh-keys/{made['id']}")
    made = (await mags.stranger.post("/ssh-keys", json={"public_key": KEY})).json()
    await mags.stranger.delete(f"/ssh-keys/{made['id']}")


async def test_a_token_makes_none_that_outlives_it(mags: Installation) -> None:
    end = iso(datetime.now(UTC) + timedelta(hours=1))
    made = await token(mags, expires_at=end)
    async with client(mags.url, made["token"]) as api:
        assert (await api.post("/tokens", json={})).json()["expires_at"] == end
        later = iso(datetime.now(UTC) + timedelta(hours=2))
        answer = await api.post("/tokens", json={"expires_at": later})
        assert answer.status_code == 422 and "expires_at" in answer.json()["details"]["fields"]


async def test_nobody_keeps_records_without_end(tmp_path: Path) -> None:
    async with alone(tmp_path, max_records=2) as mags:  # one token is there already
        assert (await mags.api.post("/tokens", json={})).status_code == 201
        cron = {"cron_expression": "@daily", "script": "true"}
        for number in range(2):
            assert (await mags.api.post("/mags-cron", json={"name": f"c{number}", **cron})).status_code == 201
            alias = {"subdomain": f"alias-{number}", "workspace_id": "w"}
            assert (await mags.api.post("/mags-url-aliases", json=alias)).status_code == 201
        for path, body in (
            ("/tokens", {}),
            ("/mags-cron", {"name": "more", **cron}),
            ("/mags-url-aliases", {"subdomain": "alias-more", "workspace_id": "w"}),
        ):
            answer = await mags.api.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited"), path


async def test_the_pool_is_shown(mags: Installation) -> None:
    host = await mags.host()
    host.presence.idle_vms = 3
    await host.announce()
    async with asyncio.timeout(60):
        while (body := (await mags.api.get("/mags-jobs/pool-status")).json())["idle_vms"] != 3:
            await asyncio.sleep(0.02)
    assert (body["total_vms"], body["min_pool_size"], body["max_pool_size"]) == (3, 1, 4)
    assert (body["hosts"][0]["host_id"], body["hosts"][0]["status"]) == ("h1", "live")


async def test_health_needs_no_token(mags: Installation) -> None:
    await mags.host()
    async with client(mags.url, "") as api:
        answer = await api.get("/health")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["hosts"]) == ("ok", 1)
    assert TOKEN not in answer.text
