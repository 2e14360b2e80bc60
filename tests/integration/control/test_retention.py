"""Jobs are forgotten some time after their end, and nothing that is still of use; on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nats.js.errors
import pytest
from sqlalchemy import func, select, update

from mags.control.db import now_ms
from mags.control.lifecycles.housekeeping import forget_old_jobs
from mags.control.models import Job, OpenPort, SshKey, SshPort, Vm
from mags.protocol import subjects
from mags.protocol.ids import new_id
from tests.integration.control.conftest import Installation, alone

DAY_MS = 86_400_000


async def ages(mags: Installation, request_id: str, days: float) -> None:
    """Everything about the job lies so many days further back."""
    past = int(days * DAY_MS)
    async with mags.world.db.write() as session:
        job = await session.get(Job, request_id)
        assert job is not None
        await session.execute(
            update(Job)
            .where(Job.id == request_id)
            .values(created_ms=Job.created_ms - past, completed_ms=Job.completed_ms - past)
        )
        await session.execute(
            update(Vm).where(Vm.id == job.vm_id).values(created_ms=Vm.created_ms - past, ended_ms=Vm.ended_ms - past)
        )


async def messages(mags: Installation, request_id: str) -> int:
    """How many of the job's output there are."""
    try:
        await mags.world.jetstream.get_last_msg(subjects.OUTPUT_STREAM, subjects.output(request_id))
    except nats.js.errors.NotFoundError:
        return 0
    return 1


async def test_a_job_is_forgotten_with_all_that_belongs_to_it(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url, job_retention_s=3 * 86400) as mags:
        await mags.host()
        old, recent = await mags.submit("echo old"), await mags.submit("echo recent")
        box = await mags.submit("sleep infinity", persistent=True, name="box", url=True)
        stopped = await mags.submit("sleep infinity", persistent=True, name="stopped", url=True)
        for one in (old, recent):
            await mags.reaches(one, "completed")
        for one in ("box", "stopped"):
            await mags.reaches(one, "running")
            assert (await mags.api.post(f"/mags-jobs/{one}/access", json={"port": 9000})).status_code == 200
        async with mags.world.db.write() as session:
            for number, job_id in enumerate((box, stopped)):
                job = await session.get(Job, job_id)
                assert job is not None
                mine: dict[str, Any] = {"owner_id": job.owner_id, "job_id": job_id}
                session.add(SshPort(port=30_000 + number, **mine))
                session.add(SshKey(id=new_id(), name="k", public_key="k", fingerprint="f", created_ms=0, **mine))
        await mags.api.post("/mags-jobs/stopped/stop")
        async with mags.world.db.write() as session:  # as if its VM were long gone
            await session.execute(
                update(Vm).where(Vm.active.is_(True), Vm.starter != box).values(active=False, ended_ms=now_ms())
            )
        for one, days in ((old, 4), (stopped, 4), (recent, 2), (box, 40)):
            await ages(mags, one, days)
        assert await messages(mags, recent) == 1

        await forget_old_jobs(mags.world)
        await forget_old_jobs(mags.world)  # VMs are forgotten after the last job that names them
        for one in (old, stopped, "stopped"):
            for path in ("status", "logs"):
                answer = await mags.api.get(f"/mags-jobs/{one}/{path}")
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert await messages(mags, old) == 0 and await messages(mags, recent) == 1
        assert (await mags.status(recent))["status"] == "completed"
        assert (await mags.status(box))["status"] == "running"
        assert (await mags.api.get("/mags-jobs")).json()["total"] == 2
        assert (await mags.api.post("/mags-jobs/box/exec", json={"command": "echo hi"})).json()["stdout"] == "hi\n"
        async with mags.world.db.read() as session:
            count = {
                table: (await session.execute(select(func.count()).select_from(table))).scalar_one()
                for table in (Vm, OpenPort, SshKey, SshPort)
            }
        assert count == {Vm: 2, OpenPort: 2, SshKey: 1, SshPort: 1}, "the box has two open ports"


async def test_the_job_that_a_living_vm_was_made_for_stays(tmp_path: Path, database_url: str) -> None:
    async with alone(tmp_path, database_url=database_url, job_retention_s=86400) as mags:
        await mags.host()
        first = await mags.submit("true", workspace_id="w", no_sync=True)
        await mags.reaches(first, "completed")
        second = await mags.submit("true", workspace_id="w", no_sync=True)
        await mags.reaches(second, "completed")
        async with mags.world.db.write() as session:
            vm = (await session.execute(select(Vm).where(Vm.starter == first))).scalar_one()
            assert vm.active, "it is parked"
        await ages(mags, first, 2)
        await ages(mags, second, 2)
        await forget_old_jobs(mags.world)
        assert (await mags.api.get(f"/mags-jobs/{second}/status")).status_code == 404
        assert (await mags.status(first))["status"] == "completed"


async def test_many_are_forgotten_a_few_at_a_time(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mags.control.lifecycles.housekeeping.JOBS_BATCH", 2)
    async with alone(tmp_path, database_url=database_url, job_retention_s=86400) as mags:
        await mags.host()
        jobs = [await mags.submit("true") for _ in range(5)]
        for job in jobs:
            await mags.reaches(job, "completed")
        async with mags.world.db.write() as session:
            await session.execute(update(Vm).values(active=False, ended_ms=now_ms() - 2 * DAY_MS))
        async with mags.world.db.write() as session:
            await session.execute(update(Job).values(completed_ms=now_ms() - 2 * DAY_MS))
        before = len(jobs)
        while before:
            await forget_old_jobs(mags.world)
            total = (await mags.api.get("/mags-jobs")).json()["total"]
            assert total in range(max(0, before - 4), before), "the runner forgets too"
            before = total
