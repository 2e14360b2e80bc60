"""Hosts that fall silent, come back, or have forgotten: what becomes of their VMs and jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mags.control.lifecycles.barrier import events_recorded
from mags.hostclient import HostState
from mags.protocol import messages
from mags.protocol.ids import new_id
from tests.integration.control.conftest import Installation, alone, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def mags(tmp_path: Path, database_url: str) -> AsyncIterator[Installation]:
    async with alone(tmp_path, database_url=database_url, host_lost_s=2.0) as made:
        yield made


async def test_the_running_jobs_of_a_lost_host_end_with_the_reason(mags: Installation) -> None:
    host = await mags.host("ha")
    run = await mags.submit("sleep 300")
    parked = await mags.run("true", workspace_id="w", no_sync=True)
    sandbox = await mags.submit("sleep infinity", persistent=True, name="box")
    await mags.reaches(run, "running")
    await mags.reaches(sandbox, "running")
    await host.vanish()
    assert "ha was lost" in (await mags.reaches(run, "error"))["error"]
    await mags.reaches(sandbox, "sleeping")
    answer = await mags.api.post("/mags-jobs/box/exec", json={"command": "true"})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    await mags.host("hb")
    again = await mags.run("true", workspace_id="w", no_sync=True)
    assert again["host_id"] == "hb" and again["vm_id"] != parked["vm_id"]


@pytest.mark.parametrize("anew", [True, False], ids=["restarted", "only cut off"])
async def test_a_host_that_comes_back_has_its_sandboxes_again_and_loses_what_was_given_up(
    mags: Installation, anew: bool
) -> None:
    host = await mags.host("ha")
    run = await mags.submit("sleep 300")
    sandbox = await mags.submit("sleep infinity", persistent=True, name="box")
    lost = await mags.reaches(run, "running")
    await mags.reaches(sandbox, "running")
    await host.vanish()
    await mags.reaches(run, "error")
    host.presence.boot = new_id() if anew else host.presence.boot
    await host.start()
    await mags.reaches(sandbox, "running")
    await until(lambda: lost["vm_id"] not in host.machines)
    assert (await mags.api.post("/mags-jobs/box/exec", json={"command": "echo hi"})).json()["stdout"] == "hi\n"


async def test_a_host_that_has_forgotten_vms_after_its_restart_ends_their_jobs(mags: Installation) -> None:
    host = await mags.host("ha")
    request_id = await mags.submit("sleep 300")
    kept = await mags.submit("sleep 300")
    body = await mags.reaches(request_id, "running")
    await mags.reaches(kept, "running")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mags.control.lifecycles.lost.GRACE_MS", -1000)
        await host.forget(body["vm_id"])
        host.presence.boot = new_id()
        await host.announce()
        body = await mags.reaches(request_id, "error")
    assert body["error"] in ("The VM was lost while its host was away.", "The script was ended.")
    assert (await mags.status(kept))["status"] == "running"


async def test_a_vm_that_nobody_knows_is_ended_when_its_host_comes(mags: Installation) -> None:
    host = await mags.host("ha", start=False)
    stray = messages.Start(
        vm_id=new_id(), spec=messages.VmSpec(), owner="u", script=messages.Script(job_id=new_id()), keep="stay"
    )
    await host._do_start(stray)
    await host.start()
    await until(lambda: stray.vm_id not in host.machines)


async def test_a_sandbox_that_never_sleeps_comes_up_elsewhere_from_its_last_sync(mags: Installation) -> None:
    first = await mags.host("ha", storage="ok")
    request_id = await mags.submit(
        "echo kept > f", persistent=True, no_sleep=True, workspace_id="always", startup_command="echo up"
    )
    await mags.reaches(request_id, "running")
    await mags.api.post(f"/mags-jobs/{request_id}/sync")
    second = await mags.host("hb", storage="ok")
    await first.vanish()
    await until(lambda: second.count("start") == 1)
    start = next(wish for verb, wish in second.calls if verb == "start")
    assert start.revive and start.script.script is None and start.startup_command == "echo up"
    assert (start.attachment.epoch, start.attachment.generation) == (2, 1)
    await until(lambda: start.vm_id in second.machines)
    answer = await mags.api.post(f"/mags-jobs/{request_id}/exec", json={"command": "cat f"})
    assert answer.json()["stdout"] == "kept\n"
    body = await mags.status(request_id)
    assert (body["status"], body["host_id"], body["vm_id"]) == ("running", "hb", start.vm_id)


async def test_a_sleeping_sandbox_of_a_lost_host_wakes_elsewhere_when_somebody_wants_it(mags: Installation) -> None:
    first = await mags.host("ha", storage="ok")
    request_id = await mags.submit("echo kept > f", persistent=True, workspace_id="p")
    body = await mags.reaches(request_id, "running")
    await mags.api.post(f"/mags-jobs/{request_id}/sync")
    second = await mags.host("hb", storage="ok")
    await first.vanish()
    await mags.reaches(request_id, "sleeping")
    assert second.count("start") == 0
    answer = await mags.api.post("/mags-jobs/p/exec", json={"command": "cat f"})
    assert answer.json()["stdout"] == "kept\n", answer.text
    status = await mags.status(request_id)
    assert (status["host_id"], status["status"]) == ("hb", "running")
    # The old host comes back with its copy: it is told to end it, and what that has is refused.
    await mags.api.post("/mags-jobs/p/exec", json={"command": "echo newer > f"})
    await mags.api.post(f"/mags-jobs/{request_id}/sync")
    first.presence.boot = new_id()
    await first.start()
    await until(lambda: body["vm_id"] not in first.machines)
    await events_recorded(mags.world)
    assert (await mags.status(request_id))["status"] == "running"
    await mags.api.post(f"/mags-jobs/{request_id}/stop")
    assert (await mags.run("grep newer f", workspace_id="p"))["status"] == "completed"


async def test_a_silence_of_our_own_connection_loses_nobody(mags: Installation) -> None:
    await mags.host("ha")
    connection = mags.world.connection
    mags.world.hosts._reconnects -= 1  # as after a reconnection
    assert mags.world.hosts.state("ha") is HostState.LIVE
    assert mags.world.hosts.state("never-heard") is HostState.LIVE
    assert connection.is_connected


async def test_a_run_of_the_workspace_of_a_lost_hosts_sandbox_goes_elsewhere(mags: Installation) -> None:
    first = await mags.host("ha", storage="ok")
    sandbox = await mags.submit("echo kept > f", persistent=True, workspace_id="p")
    await mags.reaches(sandbox, "running")
    await mags.api.post(f"/mags-jobs/{sandbox}/sync")
    await mags.host("hb", storage="ok")
    await first.vanish()
    await mags.reaches(sandbox, "sleeping")
    body = await mags.run("cat f", workspace_id="p")
    assert (body["status"], body["host_id"]) == ("completed", "hb"), body
    moved = await mags.status(sandbox)
    assert (moved["host_id"], moved["vm_id"]) == ("hb", body["vm_id"]), "the sandbox is where its workspace is"
