"""Workspaces: on a VM's own disk, and synced; joined, moved, forked, deleted."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mags.control.http.times import moment
from mags.control.lifecycles.barrier import events_recorded
from mags.host.machines.driver import OVERSLEPT
from mags.protocol import messages, subjects
from mags.protocol.messages import WorkspaceSynced
from mags.protocol.states import VmState
from tests.integration.control.conftest import Installation, alone, until
from tests.kit.scripted_host import now_ms

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def out(mags: Installation, script: str, **fields: Any) -> str:
    """What a job prints to stdout, once it has ended well."""
    body = await mags.run(script, **fields)
    assert body["status"] == "completed", body
    logs = (await mags.api.get(f"/mags-jobs/{body['request_id']}/logs")).json()["logs"]
    return "\n".join(entry["message"] for entry in logs if entry["stream"] == "stdout")


async def test_runs_of_a_local_workspace_share_its_vm_while_it_lives(mags: Installation) -> None:
    await mags.host()
    first = await mags.run("echo x > f", workspace_id="local", no_sync=True)
    assert first["start_kind"] == "pool"
    second = await mags.run("cat f", workspace_id="local", no_sync=True)
    assert second["start_kind"] in ("parked", "warm") and second["vm_id"] == first["vm_id"]
    assert await out(mags, "cat f", workspace_id="local", no_sync=True) == "x"


async def test_a_local_workspace_says_when_its_sleeping_vm_goes_with_it(mags: Installation) -> None:
    """Also after its last job, which has long been recorded as completed."""
    host = await mags.host()
    body = await mags.run("echo x > f", workspace_id="fading", no_sync=True)

    async def shown() -> list[str | None]:
        job = (await mags.api.get(f"/mags-jobs/{body['request_id']}")).json()
        workspace = (await mags.api.get("/mags-workspaces/fading")).json()
        listed = (await mags.api.get("/mags-workspaces")).json()["workspaces"]
        (row,) = (row for row in listed if row["workspace_id"] == "fading")
        assert job["status"] == "completed" and workspace == row
        return [job["removed_at"], workspace["removed_at"]]

    async def now_is(state: VmState, reason: str = "") -> int:
        at_ms = now_ms()
        event = messages.VmChanged(vm_id=body["vm_id"], state=state, reason=reason, at_ms=at_ms)
        await mags.nats.jetstream(timeout=30).publish(subjects.event(host.host_id), messages.encode(event))
        async with asyncio.timeout(60):
            while (await mags.api.get(f"/mags-jobs/{body['request_id']}")).json()["vm_state"] != state:
                await asyncio.sleep(0.02)
        return at_ms

    assert await shown() == [None, None], "it is only parked"
    slept_ms = await now_is(VmState.SLEEPING)
    assert host.presence.local_retention_s is not None
    assert await shown() == [moment(slept_ms + round(host.presence.local_retention_s * 1000))] * 2
    await now_is(VmState.PARKED)
    assert await shown() == [None, None], "somebody has used it"
    await now_is(VmState.SLEEPING)
    await now_is(VmState.GONE, OVERSLEPT)
    job = (await mags.api.get(f"/mags-jobs/{body['request_id']}")).json()
    assert (job["status"], job["vm_reason"], job["removed_at"]) == ("completed", OVERSLEPT, None)
    assert (await mags.api.get("/mags-workspaces/fading")).json()["removed_at"] is None
    listed = (await mags.api.get("/mags-workspaces")).json()["workspaces"]
    assert "fading" not in [row["workspace_id"] for row in listed], "its files were nowhere else"


async def test_workspaces_come_whole_or_in_pages(mags: Installation) -> None:
    await mags.host()
    for name in ("page-1", "page-2", "page-3"):
        await mags.run("true", workspace_id=name, no_sync=True)
    whole = (await mags.api.get("/mags-workspaces")).json()
    names = [row["workspace_id"] for row in whole["workspaces"]]
    assert names[:3] == ["page-3", "page-2", "page-1"] and whole["total"] == len(names)

    two = (await mags.api.get("/mags-workspaces", params={"page_size": 2})).json()
    next_two = (await mags.api.get("/mags-workspaces", params={"page_size": 2, "page": 2})).json()
    assert [row["workspace_id"] for row in two["workspaces"] + next_two["workspaces"]] == names[:4]
    assert (next_two["total"], next_two["page"], next_two["page_size"]) == (whole["total"], 2, 2)
    assert (await mags.api.get("/mags-workspaces", params={"page": 9999})).json()["workspaces"] == []
    assert (await mags.stranger.get("/mags-workspaces")).json()["total"] == 0


async def test_two_runs_at_once_of_a_new_workspace_share_one_vm(mags: Installation) -> None:
    await mags.host()
    ids = await asyncio.gather(*(mags.submit("sleep 0.1", workspace_id="both", no_sync=True) for _ in range(5)))
    bodies = [await mags.reaches(request_id, "completed") for request_id in ids]
    assert len({body["vm_id"] for body in bodies}) == 1


async def test_a_run_whose_vm_has_just_gone_gets_another(mags: Installation) -> None:
    host = await mags.host()
    first = await mags.run("true", workspace_id="lost", no_sync=True)
    await host.forget(first["vm_id"])
    second = await mags.run("true", workspace_id="lost", no_sync=True)
    assert second["status"] == "completed" and second["vm_id"] != first["vm_id"]


async def test_a_sandbox_that_joins_a_parked_vm_makes_it_stay(mags: Installation) -> None:
    host = await mags.host()
    first = await mags.run("true", workspace_id="join", no_sync=True)
    request_id = await mags.submit("true", workspace_id="join", no_sync=True, persistent=True)
    assert (await mags.reaches(request_id, "running"))["vm_id"] == first["vm_id"]
    assert host.machines[first["vm_id"]].keep == "stay"


async def test_without_storage_a_synced_workspace_says_what_to_do(mags: Installation) -> None:
    await mags.host()
    answer = await mags.api.post("/mags-jobs", json={"script": "true", "workspace_id": "synced"})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_available")
    assert "--no-sync" in answer.json()["error"]
    assert (await mags.api.get("/mags-workspaces/synced")).status_code == 404, "nothing was made"


async def test_a_synced_workspace_goes_from_host_to_host(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        first = await mags.host("ha", storage="ok")
        body = await mags.run("echo x > f", workspace_id="p")
        assert body["status"] == "completed"
        synced = await mags.api.post("/mags-jobs/p/sync")
        assert synced.status_code == 200 and synced.json()["synced_at"] is not None
        assert synced.json()["freeze_ms"] >= 0
        workspace = (await mags.api.get("/mags-workspaces/p")).json()
        assert workspace["last_synced_at"] is not None and workspace["synced"] is True
        await first._do_stop(messages.Stop(vm_id=body["vm_id"]))
        await first.vanish()
        second = await mags.host("hb", storage="ok")
        first.presence.accepting = False
        await first.announce()
        assert await out(mags, "cat f", workspace_id="p") == "x"
        start = next(wish for verb, wish in second.calls if verb == "start")
        assert (start.attachment.epoch, start.attachment.generation) == (2, 2)
        view = (await mags.api.get("/mags-workspaces")).json()
        assert view["total"] == 1 and view["workspaces"][0]["size_bytes"] == 2


async def test_a_fork_starts_from_its_base_and_a_throw_away_copy_changes_nothing(
    tmp_path: Path, database_url: str
) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        host = await mags.host("ha", storage="ok")
        await mags.run("echo base > f", workspace_id="base")
        assert await out(mags, "cat f; echo changed > f", base_workspace_id="base") == "base"
        assert await out(mags, "cat f; echo fork > f", workspace_id="fork", base_workspace_id="base") == "base"
        assert await out(mags, "cat f", workspace_id="fork") == "fork"
        assert await out(mags, "cat f", workspace_id="base") == "base"
        starts = [wish for verb, wish in host.calls if verb == "start"]
        assert starts[1].attachment.discard and starts[2].attachment.base == starts[1].attachment.base
        assert (await mags.api.get("/mags-workspaces/fork")).json()["base_workspace_id"] == "base"
        answer = await mags.api.post("/mags-jobs", json={"script": "true", "base_workspace_id": "nothing"})
        assert answer.status_code == 404


async def test_a_workspace_keeps_the_image_that_its_files_lie_over(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        host = await mags.host("ha", storage="ok")

        def images() -> list[str]:
            return [wish.spec.image for verb, wish in host.calls if verb == "start"]

        first = await mags.run("true", workspace_id="p", image="debian")
        other = await mags.api.post("/mags-jobs", json={"script": "true", "workspace_id": "p", "image": "alpine"})
        assert (other.status_code, other.json()["code"]) == (409, "conflict") and "'debian'" in other.json()["error"]
        await mags.api.post("/mags-jobs/p/sync")
        await host._do_stop(messages.Stop(vm_id=first["vm_id"]))
        await events_recorded(mags.world)
        for fields in (
            {"workspace_id": "p"},
            {"workspace_id": "f", "base_workspace_id": "p"},
            {"base_workspace_id": "p"},
        ):
            assert (await mags.run("true", **fields))["status"] == "completed"
        assert images() == ["debian"] * 4
        assert (await mags.api.get("/mags-workspaces/f")).json()["image"] == "debian"
        refused = {"script": "true", "workspace_id": "g", "base_workspace_id": "p", "image": "alpine"}
        assert (await mags.api.post("/mags-jobs", json=refused)).status_code == 409
        assert (await mags.api.get("/mags-workspaces/g")).status_code == 404, "nothing was made"
        assert (await mags.run("true", workspace_id="q"))["status"] == "completed" and images()[-1] == "alpine"


async def test_a_sync_under_an_old_epoch_is_refused_and_its_copy_ended(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        host = await mags.host("ha", storage="ok")
        first = await mags.run("echo 1 > f", workspace_id="p")
        old = host.machines[first["vm_id"]]
        assert old.start.attachment is not None
        await host._do_sync(messages.VmRequest(vm_id=first["vm_id"]))
        # The host lies: it says that the VM is gone, but keeps it, as one that was cut off would.
        await host._report(messages.VmChanged(vm_id=first["vm_id"], state="gone", at_ms=now_ms()))
        await events_recorded(mags.world)
        second = await mags.run("echo 2 > f", workspace_id="p")
        assert second["vm_id"] != first["vm_id"]
        await mags.api.post("/mags-jobs/p/sync")
        before = (await mags.api.get("/mags-workspaces/p")).json()["last_synced_at"]
        stale = WorkspaceSynced(
            vm_id=first["vm_id"],
            workspace_id=old.start.attachment.workspace_id,
            epoch=1,
            generation=99,
            bytes=1,
            size_bytes=1,
            at_ms=now_ms(),
        )
        await mags.nats.jetstream().publish(subjects.event("ha"), messages.encode(stale))
        await until(lambda: any(verb == "stop" and wish.vm_id == first["vm_id"] for verb, wish in host.calls))
        assert (await mags.api.get("/mags-workspaces/p")).json()["last_synced_at"] == before


async def test_a_workspace_in_use_can_not_be_deleted_and_an_unused_one_goes_with_its_data(
    tmp_path: Path, database_url: str
) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        host = await mags.host("ha", storage="ok")
        request_id = await mags.submit("sleep infinity", workspace_id="used", persistent=True)
        await mags.reaches(request_id, "running")
        answer = await mags.api.delete("/mags-workspaces/used")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        await mags.api.post("/mags-jobs/used/stop")
        assert list((tmp_path / "hosts" / "store").iterdir()), "stopping has synced"
        assert (await mags.api.delete("/mags-workspaces/used")).status_code == 200
        assert (await mags.api.get("/mags-workspaces/used")).status_code == 404
        await until(lambda: host.count("drop") == 1)
        await until(lambda: not list((tmp_path / "hosts" / "store").iterdir()))
        body = await mags.run("ls", workspace_id="used")
        assert body["status"] == "completed", "the name is free again"


async def test_a_workspace_goes_out_as_an_archive_and_comes_in_under_another_name(
    tmp_path: Path, database_url: str
) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        host = await mags.host("ha", storage="ok")
        await mags.run("echo x > f", workspace_id="p")
        answer = await mags.api.get("/mags-workspaces/p/export")
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/x-tar"
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
            assert "./f" in archive.getnames(), "a VM that is up is synced first"
        key = {"Idempotency-Key": "import-1"}
        made = await mags.api.post("/mags-workspaces/q/import?disk_gb=4", content=answer.content, headers=key)
        assert made.status_code == 201 and made.json()["disk_gb"] == 4, made.text
        repeated = await mags.api.post("/mags-workspaces/q/import?disk_gb=4", content=answer.content, headers=key)
        assert (repeated.status_code, repeated.json()) == (201, made.json()), "as after an answer that was lost"
        assert host.count("archive") == 2, "an export and one import"
        assert await out(mags, "cat f", workspace_id="q") == "x"
        again = await mags.api.post("/mags-workspaces/q/import", content=answer.content)
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
        assert (await mags.api.post("/mags-workspaces/-q/import", content=b"")).status_code == 422
        assert (await mags.stranger.get("/mags-workspaces/p/export")).status_code == 404


async def test_a_local_workspace_is_no_archive(mags: Installation) -> None:
    await mags.host()
    await mags.run("true", workspace_id="kept-here", no_sync=True)
    assert (await mags.api.get("/mags-workspaces/kept-here/export")).status_code == 409
    answer = await mags.api.post("/mags-workspaces/new/import", content=b"")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_available")


async def test_a_parked_workspace_is_deleted_with_its_vm(mags: Installation) -> None:
    host = await mags.host()
    body = await mags.run("true", workspace_id="parked", no_sync=True)
    await until(lambda: host.machines[body["vm_id"]].state == "parked")
    assert (await mags.api.delete("/mags-workspaces/parked")).status_code == 200
    assert body["vm_id"] not in host.machines


async def test_a_disk_only_grows(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        host = await mags.host(storage="ok")
        await mags.submit("sleep infinity", workspace_id="grow", persistent=True, disk_gb=3)
        await mags.reaches("grow", "running")
        answer = await mags.api.post("/mags-workspaces/grow/resize", json={"disk_gb": 5})
        assert answer.json()["disk_gb"] == 5 and host.count("resize") == 1
        answer = await mags.api.post("/mags-workspaces/grow/resize", json={"disk_gb": 4})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert (await mags.api.get("/mags-workspaces/grow")).json()["disk_gb"] == 5


async def test_a_local_disk_grows_with_the_next_vm_only(mags: Installation) -> None:
    await mags.host()
    await mags.submit("sleep infinity", workspace_id="growing", no_sync=True, persistent=True, disk_gb=3)
    await mags.reaches("growing", "running")
    answer = await mags.api.post("/mags-workspaces/growing/resize", json={"disk_gb": 5})
    assert answer.status_code == 409 and answer.json()["code"] == "not_available", answer.text
    assert (await mags.api.get("/mags-workspaces/growing")).json()["disk_gb"] == 3
    await mags.api.post("/mags-jobs/growing/stop")
    answer = await mags.api.post("/mags-workspaces/growing/resize", json={"disk_gb": 5})
    assert answer.json()["disk_gb"] == 5, answer.text


async def test_two_owners_may_use_the_same_name(mags: Installation) -> None:
    await mags.host()
    mine = await mags.run("echo mine > f", workspace_id="same", no_sync=True)
    answer = await mags.stranger.post("/mags-jobs", json={"script": "ls", "workspace_id": "same", "no_sync": True})
    theirs = answer.json()["request_id"]
    async with asyncio.timeout(60):
        while (body := (await mags.stranger.get(f"/mags-jobs/{theirs}/status")).json())["status"] != "completed":
            await asyncio.sleep(0.01)
    assert body["vm_id"] != mine["vm_id"]
    assert (await mags.stranger.get(f"/mags-jobs/{theirs}/logs")).json()["logs"] == []


async def test_a_local_vm_has_nothing_to_sync(mags: Installation) -> None:
    await mags.host()
    await mags.run("true", workspace_id="unsynced", no_sync=True)
    answer = await mags.api.post("/mags-jobs/unsynced/sync")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
