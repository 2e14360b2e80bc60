"""The clock of control's machine is set back, or forward: nothing waits for it, nothing is taken twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from mags.control.lifecycles.barrier import events_recorded
from mags.control.models import CronJob
from mags.protocol import messages
from mags.protocol.errors import Problem
from tests.integration.control.conftest import alone, until
from tests.kit import clocks

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR, YEAR = 3600.0, 365 * 86400.0


@pytest.fixture
def shift() -> Iterator[Callable[[float], None]]:
    with clocks.movable() as move:
        yield move


@pytest.mark.parametrize("seconds", [-YEAR, HOUR / 2], ids=["back", "forward"])
async def test_a_job_that_waits_for_room_goes_on(
    tmp_path: Path, shift: Callable[[float], None], seconds: float
) -> None:
    async with alone(tmp_path) as mags:
        host = await mags.host()
        host.refuse["start"] = Problem("no_capacity", "The memory is used up.", retry_after=1)
        request_id = await mags.submit("true")
        await until(lambda: host.count("start") > 1)
        shift(seconds)
        del host.refuse["start"]
        assert (await mags.reaches(request_id, "completed", "error"))["status"] == "completed"


@pytest.mark.parametrize("seconds", [-YEAR, YEAR], ids=["back", "forward"])
async def test_a_workspace_goes_from_host_to_host_by_epochs_and_numbers(
    tmp_path: Path, shift: Callable[[float], None], seconds: float
) -> None:
    async with alone(tmp_path, host_lost_s=HOUR) as mags:  # only what a host says ends its VMs
        first = await mags.host("ha", storage="ok")
        body = await mags.run("echo 1 > f", workspace_id="p")
        await mags.api.post("/mags-jobs/p/sync")
        before = (await mags.api.get("/mags-workspaces/p")).json()["last_synced_at"]
        shift(seconds)
        await mags.run("echo 2 > f", workspace_id="p")
        await mags.api.post("/mags-jobs/p/sync")
        after = (await mags.api.get("/mags-workspaces/p")).json()["last_synced_at"]
        assert (after < before) == (seconds < 0), "it says when, by the clock as it is"
        await first._do_stop(messages.Stop(vm_id=body["vm_id"]))
        await first.vanish()
        await events_recorded(mags.world)
        second = await mags.host("hb", storage="ok")
        first.presence.accepting = False
        await first.announce()
        assert (await mags.run("grep 2 f", workspace_id="p"))["status"] == "completed"
        start = next(wish for verb, wish in second.calls if verb == "start")
        assert start.attachment.epoch == 2 and start.attachment.generation >= 2


async def test_a_cron_job_that_was_planned_by_a_wrong_clock_is_planned_anew(
    tmp_path: Path, shift: Callable[[float], None]
) -> None:
    shift(YEAR)
    async with alone(tmp_path) as mags:
        await mags.host()
        made = await mags.api.post("/mags-cron", json={"name": "c", "cron_expression": "* * * * *", "script": "true"})
        assert made.status_code == 201
        shift(-YEAR)

        async def next_s() -> float:
            async with mags.world.db.read() as session:
                return ((await session.execute(select(CronJob.next_ms))).scalar_one() or 0) / 1000

        deadline = time.monotonic() + 60
        while await next_s() > time.time() + 61:
            assert time.monotonic() < deadline
            mags.world.kick.set()
            await mags.api.get("/mags-cron")
