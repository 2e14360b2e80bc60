"""The same on SQLite and on PostgreSQL: migrations, transactions, and a whole installation with two controls."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, insert, select, text
from sqlalchemy.engine import Connection

from mags.control.db import Database, migrate, now_ms
from mags.control.db.migrate import alembic_config
from mags.control.lifecycles.endings import Effects
from mags.control.lifecycles.reports import job_ended
from mags.control.lifecycles.stopping import record_stop
from mags.control.models import Base
from mags.control.records import accounts
from mags.protocol.messages import JobEnded
from tests.integration.control.conftest import Installation, alone, client, empty_database, installation, until
from tests.kit.marks import ONCE

WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    yield made
    await made.close()


async def test_migrations_make_what_the_models_say(database: Database) -> None:
    await migrate(database)

    def differences(connection: Connection) -> Any:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata)

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_what_the_first_version_recorded_is_there_after_all_migrations(database: Database) -> None:
    """A row in each of its tables, every column filled."""

    def first(connection: Connection) -> dict[str, dict[str, Any]]:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.commit()
        tables = MetaData()
        tables.reflect(connection)
        rows = {}
        for table in tables.sorted_tables:
            if table.name != "alembic_version":
                samples: dict[type, Any] = {str: "x", int: 7, bool: True, object: {"a": "b"}}  # the last is JSON's
                row = {column.name: samples[column.type.python_type] for column in table.columns}
                connection.execute(insert(table).values(row))
                rows[table.name] = row
        connection.commit()
        return rows

    def now(connection: Connection) -> dict[str, dict[str, Any]]:
        tables = MetaData()
        tables.reflect(connection)
        return {
            table.name: dict(connection.execute(select(table)).one()._mapping)
            for table in tables.sorted_tables
            if table.name != "alembic_version"
        }

    async with database.engine.connect() as connection:
        rows = await connection.run_sync(first)
    assert {"users", "jobs", "vms", "workspaces"} < set(rows)
    await migrate(database)
    async with database.engine.connect() as connection:
        found = await connection.run_sync(now)
    for name, row in rows.items():
        assert {column: found[name][column] for column in row} == row, name
    assert found["workspaces"]["image"] == "x", "that of its VM"


async def test_several_programs_may_migrate_at_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    try:
        await asyncio.gather(*(migrate(database) for database in databases))
    finally:
        for database in databases:
            await database.close()


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    await migrate(database)
    with pytest.raises(RuntimeError):
        async with database.write() as session:
            await accounts.add_user(session, "x")
            raise RuntimeError
    async with database.read() as session:
        assert await accounts.user_by_name(session, "x") is None


async def test_a_look_is_of_one_moment(database: Database) -> None:
    await migrate(database)
    async with database.read() as session:
        assert await accounts.user_by_name(session, "late") is None
        await _add(database, "late")
        assert await accounts.user_by_name(session, "late") is None
    async with database.read() as session:
        assert await accounts.user_by_name(session, "late") is not None


async def test_many_writers_at_once_all_get_their_turn(database_url: str) -> None:
    one, two = Database(database_url), Database(database_url)
    try:
        await migrate(one)

        async def add(database: Database, number: int) -> None:
            async with database.write() as session:
                await accounts.add_user(session, f"u{number}")

        await asyncio.gather(*(add((one, two)[number % 2], number) for number in range(60)))
        async with one.read() as session:
            count = (await session.execute(text("SELECT count(*) FROM users"))).scalar_one()
        assert count == 60
    finally:
        await one.close()
        await two.close()


async def test_what_is_over_stays_as_it_is_when_two_end_it_at_once(tmp_path: Path, cluster: str) -> None:
    """A script's end is being recorded while somebody else records the stop that was wished."""
    async with alone(tmp_path, database_url=await empty_database(cluster)) as mags:
        await mags.host()
        job_id = await mags.submit("sleep 1000")
        vm_id = (await mags.reaches(job_id, "running"))["vm_id"]
        world = mags.world
        ended = JobEnded(vm_id=vm_id, job_id=job_id, exit_code=3, ended_at_ms=now_ms())
        async with world.db.write() as session:
            await job_ended(session, ended, Effects())
            await session.flush()
            stopping = asyncio.create_task(record_stop(world, job_id, None))
            while not stopping.done():  # until it waits for us, or has overtaken us
                async with world.db.read() as other:
                    if (await other.execute(text(WAITS))).scalar_one():
                        break
                await asyncio.sleep(0.02)
        await stopping
        body = await mags.status(job_id)
        assert (body["status"], body["exit_code"]) == ("error", 3)


async def test_records_that_can_not_be_written_are_said_to_be_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mags.control.db.engine.BUSY_PATIENCE_S", 0.2)
    async with alone(tmp_path) as mags:
        await mags.host()
        other = sqlite3.connect(tmp_path / "control.db", isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            answer = await mags.api.post("/mags-jobs", json={"script": "true"})
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"]
        finally:
            other.close()
        assert (await mags.run("true"))["status"] == "completed"


async def test_another_writer_is_waited_for_and_nobody_else_waits(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/a.db")
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    try:
        await migrate(database)
        other.execute("BEGIN IMMEDIATE")
        adding = asyncio.ensure_future(_add(database, "late"))
        for _ in range(3):  # readers, and the loop, go on meanwhile
            async with database.read() as session:
                assert await accounts.user_by_name(session, "late") is None
            await asyncio.sleep(0.01)
        assert not adding.done()
        other.execute("COMMIT")
        await adding
        async with database.read() as session:
            assert await accounts.user_by_name(session, "late") is not None
    finally:
        other.close()
        await database.close()


async def test_the_log_of_writes_goes_into_the_database_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mags.control.db.engine.CHECKPOINT_EVERY", 10)
    database = Database(f"sqlite:///{tmp_path}/a.db")
    try:
        await migrate(database)
        size = 0
        for number in range(200):
            await _add(database, f"u{number}")
            if database._checkpoint is not None:  # on a busy machine the thread may come to it much later
                await database._checkpoint
            size = max(size, (tmp_path / "a.db-wal").stat().st_size)
        assert size < 2 << 20  # 200 of them are more
    finally:
        await database.close()


async def _add(database: Database, name: str) -> None:
    async with database.write() as session:
        await accounts.add_user(session, name)


@ONCE
async def test_a_whole_installation_on_postgresql_with_two_controls(tmp_path: Path, cluster: str) -> None:
    url = await empty_database(cluster)
    async with alone(tmp_path, database_url=url) as one:
        host = await one.host("ha", storage="ok")
        async with installation(tmp_path, one.nats_url, database_url=url) as two:
            await until(lambda: two.world.hosts.get("ha") is not None)
            await the_same_everywhere(one, two)
            starts = [wish.vm_id for verb, wish in host.calls if verb == "start"]
            assert len(starts) == len(set(starts))


async def the_same_everywhere(one: Installation, two: Installation) -> None:
    """Requests go to the one, questions to the other."""
    key = {"Idempotency-Key": "k"}
    answers = await asyncio.gather(
        *(mags.api.post("/mags-jobs", json={"script": "exit 3"}, headers=key) for mags in (one, two) for _ in range(5))
    )
    assert len({answer.json()["request_id"] for answer in answers}) == 1, [answer.text for answer in answers]
    body = await two.reaches(answers[0].json()["request_id"], "completed", "error")
    assert body["exit_code"] == 3

    ids = await asyncio.gather(*(mags.submit("sleep 0.1", workspace_id="w") for mags in (one, two) for _ in range(4)))
    bodies = [await two.reaches(request_id, "completed", "error") for request_id in ids]
    assert {body["status"] for body in bodies} == {"completed"}, bodies
    assert len({body["vm_id"] for body in bodies}) == 1, "eight runs at once share the workspace's VM"
    workspace = (await two.api.get("/mags-workspaces/w")).json()
    assert workspace["synced"] is True

    box = await one.submit("sleep infinity", persistent=True, name="box", url=True)
    await two.reaches(box, "running")
    assert (await two.api.post("/mags-jobs/box/exec", json={"command": "echo hi"})).json()["stdout"] == "hi\n"
    assert (await two.api.patch("/mags-jobs/box", json={"name": "crate"})).json()["name"] == "crate"
    assert (await one.api.post("/mags-jobs/crate/access", json={"port": 9000})).json()["port"] == 9000
    assert (await two.api.post("/mags-jobs/crate/stop")).json()["status"] == "completed"

    page = (await one.api.get("/mags-jobs?page_size=3")).json()
    assert page["total"] == 10 and len(page["jobs"]) == 3
    assert (await one.api.get("/mags-jobs/usage")).json()["total_jobs"] == 10
    assert (await one.stranger.get("/mags-jobs")).json()["total"] == 0
    made = await one.api.post("/mags-cron", json={"name": "c", "cron_expression": "@hourly", "script": "true"})
    assert (
        await two.api.post("/mags-cron", json={"name": "c", "cron_expression": "@daily", "script": "x"})
    ).status_code == 409
    assert (await two.api.post(f"/mags-cron/{made.json()['id']}/run")).status_code == 202
    alias = {"subdomain": "pg", "workspace_id": "w"}
    both = await asyncio.gather(*(mags.api.post("/mags-url-aliases", json=alias) for mags in (one, two)))
    assert sorted(answer.status_code for answer in both) == [201, 409]
    token = (await one.api.post("/tokens", json={"name": "t"})).json()
    async with client(two.url, token["token"]) as api:
        assert (await api.get("/me")).status_code == 200
    assert (await one.api.delete("/mags-workspaces/w")).status_code == 200
