"""Workspaces that a host finds on its volume and that nobody has recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from mags.control.lifecycles import discovery
from mags.control.records import accounts
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from mags.protocol.messages import StoredWorkspace
from tests.integration.control.conftest import Installation, alone, until
from tests.kit.scripted_host import ScriptedHost

pytestmark = pytest.mark.asyncio(loop_scope="module")


def stored(name: str, *, owner: str = "", generation: int = 3) -> StoredWorkspace:
    return StoredWorkspace(
        id=new_id(), owner=owner or new_id(), name=name, disk_gb=4, generation=generation, epoch=7, size_bytes=5000,
        synced_ms=1_700_000_000_000,
    )  # fmt: skip


async def names(mags: Installation) -> set[str]:
    return {one["workspace_id"] for one in (await mags.api.get("/mags-workspaces")).json()["workspaces"]}


async def volume(mags: Installation, *found: StoredWorkspace) -> ScriptedHost:
    """A host whose volume holds these, once it has been asked."""
    host = await mags.host("ha", storage="ok", start=False)
    host.stored = list(found)
    await host.start()
    await until(lambda: host.count("stored") >= 1)
    return host


async def settled(mags: Installation, count: int) -> set[str]:
    """The names, once there are so many."""
    found: set[str] = set()
    while len(found) < count:
        found = await names(mags)
    return found


async def test_an_empty_installation_takes_over_what_is_on_the_volume(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "PAGE", 2)  # three pages
    async with alone(tmp_path, database_url=database_url) as mags:
        one, bad = stored("p"), stored("../p")
        other = stored("p")
        host = await volume(mags, one, other, bad, stored("q"), stored("new", generation=0))
        found = await settled(mags, 5)
        assert {"p", "q", "new", f"workspace-{bad.id[:8]}"} < found
        assert found & {f"p-{one.id[:8]}", f"p-{other.id[:8]}"}, "two owners had one of that name"
        shown = (await mags.api.get("/mags-workspaces/q")).json()
        assert (shown["disk_gb"], shown["size_bytes"], shown["synced"]) == (4, 5000, True)
        assert shown["last_synced_at"].startswith("2023-11-14")
        body = await mags.run("true", workspace_id="q")
        assert body["status"] == "completed", body
        start = host.machines[body["vm_id"]].start
        assert start.attachment is not None
        assert (start.attachment.generation, start.attachment.epoch) == (3, 8), "newer than the one before"


async def test_what_is_recorded_is_never_changed_and_what_is_deleted_not_found_again(
    tmp_path: Path, database_url: str
) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        host = await volume(mags)
        await mags.run("echo x > f", workspace_id="p")
        await mags.run("true", workspace_id="gone")
        ids = {name: host.machines[(await mags.run("true", workspace_id=name))["vm_id"]] for name in ("p", "gone")}
        before = (await mags.api.get("/mags-workspaces/p")).json()
        for name, vm in ids.items():
            assert vm.start.attachment is not None
            found = stored(f"{name}-other", generation=99)
            found.id = vm.start.attachment.workspace_id
            host.stored.append(found)
        host.stored.append(stored("last"))
        host.refuse["drop"] = Problem("unavailable", "Not now.")
        assert (await mags.api.delete("/mags-workspaces/gone")).status_code == 200
        host.presence.boot = new_id()
        await until(lambda: host.count("stored") == 2)
        assert await settled(mags, 2) == {"p", "last"}
        after = (await mags.api.get("/mags-workspaces/p")).json()
        assert (after["disk_gb"], after["size_bytes"]) == (before["disk_gb"], before["size_bytes"])


async def test_a_known_owner_keeps_what_is_theirs(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        async with mags.world.db.read() as session:
            stranger = await accounts.user_by_name(session, "stranger")
        assert stranger is not None
        await volume(mags, stored("mine"), stored("theirs", owner=stranger.id))
        assert await settled(mags, 1) == {"mine"}
        answer = await mags.stranger.get("/mags-workspaces/theirs")
        while answer.status_code == 404:
            answer = await mags.stranger.get("/mags-workspaces/theirs")
        assert answer.status_code == 200


async def test_a_host_that_can_not_say_is_asked_again(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        host = await mags.host("ha", storage="ok", start=False)
        host.stored, host.refuse["stored"] = [stored("p")], Problem("unavailable", "Not now.")
        await host.start()
        await until(lambda: host.count("stored") >= 2)
        del host.refuse["stored"]
        assert await settled(mags, 1) == {"p"}


async def test_a_host_is_asked_when_its_storage_is_well_and_once(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url) as mags:
        host = await mags.host("ha", storage="It is being opened.")
        assert host.count("stored") == 0
        host.presence.storage = "ok"
        await until(lambda: host.count("stored") == 1)
        heard = mags.world.hosts.get("ha")
        await until(lambda: mags.world.hosts.get("ha") is not heard)
        assert host.count("stored") == 1
