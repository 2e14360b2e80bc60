"""What programs do at once with one client: in tasks, in threads; and twice, when an answer was lost."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from mags import AsyncMags, Mags
from mags.sdk.calls import jobs
from mags.sdk.wire import Wire
from tests.integration.sdk.conftest import PATIENCE, Server

pytestmark = pytest.mark.timeout(120)
DATA = os.urandom(5_000_000)
"""More than fits on the way."""


def test_a_process_is_written_to_and_read_in_two_threads(m: Mags) -> None:
    with m.sandbox() as box, box.start("cat") as process:

        def feed() -> None:
            process.write(DATA)
            process.close_stdin()

        feeder = threading.Thread(target=feed)
        feeder.start()
        assert b"".join(chunk.data for chunk in process) == DATA
        feeder.join(PATIENCE)
        assert process.exit_code == 0


async def test_a_process_is_written_to_and_read_in_two_tasks(server: Server) -> None:
    async with AsyncMags(server.token, server.url, timeout=PATIENCE) as m, m.sandbox() as box:
        async with box.start("cat") as process, asyncio.TaskGroup() as tasks:

            async def feed() -> None:
                await process.write(DATA)
                await process.close_stdin()

            tasks.create_task(feed())
            assert b"".join([chunk.data async for chunk in process]) == DATA
        assert process.exit_code == 0


async def test_scripts_run_side_by_side(server: Server) -> None:
    async with AsyncMags(server.token, server.url, timeout=PATIENCE) as m:
        results = await asyncio.gather(*(m.run_and_wait(f"echo {n}") for n in range(5)))
    assert [result["logs"][0]["message"] for result in results] == list("01234")


def test_a_key_makes_a_repeated_submission_one(server: Server) -> None:
    """As after a lost answer: the same request reaches the server twice."""
    request = jobs.run("true").request(server.token, "test")
    answers = []
    for _ in range(2):
        wire = Wire(server.url)
        answers.append(b"".join(wire.open(request).chunks()))
        wire.close()
    assert answers[0] == answers[1]
