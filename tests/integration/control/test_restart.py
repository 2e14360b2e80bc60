"""Control ends, or dies, and another one goes on: nothing lives in its memory only."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from mags.kit.nats import connect
from mags.protocol.errors import Problem
from tests.integration.control.conftest import PATIENCE, TOKEN, Installation, alone, client, installation, until
from tests.kit.marks import ONCE
from tests.kit.nats_server import nats_server
from tests.kit.scripted_host import ScriptedHost

pytestmark = pytest.mark.asyncio(loop_scope="module")


@ONCE
async def test_what_waited_before_a_restart_runs_after_it(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    async with nats_server(tmp_path / "nats", jetstream=True) as url:
        async with installation(tmp_path, url) as mags:
            host = await mags.host()
            host.refuse["start"] = Problem("no_capacity", "Full.")
            request_id = await mags.submit("echo later")
            await until(lambda: host.count("start") > 0)
            key = {"Idempotency-Key": "same"}
            first = (await mags.api.post("/mags-jobs", json={"script": "true"}, headers=key)).json()
        async with installation(tmp_path, url) as mags:
            await mags.host()
            again = (await mags.api.post("/mags-jobs", json={"script": "true"}, headers=key)).json()
            assert again == first
            assert (await mags.reaches(request_id, "completed", "error"))["status"] == "completed"
            assert (await mags.reaches(first["request_id"], "completed", "error"))["status"] == "completed"


class Program:
    """`python -m mags.control` as a process of its own."""

    def __init__(self, folder: Path, nats_url: str) -> None:
        (folder / "token").write_text(TOKEN)
        self.log = folder / "control.log"
        self.socket = folder / "api.sock"
        environment = {
            **os.environ,
            "MAGS_CONTROL_NATS_URL": nats_url,
            "MAGS_CONTROL_DATABASE_URL": f"sqlite:///{folder}/control.db",
            "MAGS_CONTROL_BOOTSTRAP_TOKEN_FILE": str(folder / "token"),
            "MAGS_CONTROL_UDS": str(self.socket),
            "MAGS_CONTROL_POLL_INTERVAL_S": "0.1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mags.control"], env=environment, stdout=log, stderr=log
            )

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)


@contextmanager
def program(folder: Path, nats_url: str) -> Iterator[Program]:
    made = Program(folder, nats_url)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.end(signal.SIGKILL)


def api(made: Program) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(made.socket)),
        base_url="http://mags/api/v1",
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=PATIENCE,
    )


async def healthy(mags: httpx.AsyncClient, made: Program, hosts: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            assert made.process.poll() is None, made.log.read_text()
            try:
                if (await mags.get("/health")).json().get("hosts") == hosts:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


@ONCE
async def test_a_control_killed_with_nine_loses_no_job(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "host").mkdir()
    runs = tmp_path / "runs"
    async with nats_server(tmp_path / "nats", jetstream=True) as url:
        nats = await connect(url, name="test")
        host = ScriptedHost(nats, tmp_path / "host")
        await host.start()
        try:
            with program(tmp_path, url) as first:
                async with api(first) as mags:
                    await healthy(mags, first, 1)
                    answers = await asyncio.gather(
                        *(
                            mags.post("/mags-jobs", json={"script": f"echo {n} >> {runs}; sleep 0.{n}; exit {n}"})
                            for n in range(9)
                        )
                    )
                    ids = [answer.json()["request_id"] for answer in answers]
                first.end(signal.SIGKILL)
            await until(lambda: not any(vm.processes for vm in host.machines.values()))
            with program(tmp_path, url) as second:
                async with api(second) as mags:
                    await healthy(mags, second, 1)
                    for number, request_id in enumerate(ids):
                        deadline = time.monotonic() + PATIENCE
                        while (body := (await mags.get(f"/mags-jobs/{request_id}/status")).json())["exit_code"] is None:
                            assert time.monotonic() < deadline, (body, second.log.read_text())
                            await asyncio.sleep(0.05)
                        assert body["exit_code"] == number
                assert second.end(signal.SIGTERM) == 0, second.log.read_text()
            assert sorted(runs.read_text().split()) == [str(number) for number in range(9)]
        finally:
            await host.aclose()
            await nats.close()


async def test_wrong_settings_are_told_at_the_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mags.control"],
        env={**os.environ, "MAGS_CONTROL_PORT": "seventy"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2 and "MAGS_CONTROL_PORT" in done.stderr


async def test_the_messages_may_go_away_for_a_moment(tmp_path: Path) -> None:
    async with alone(tmp_path) as mags:
        host = await mags.host()
        request_id = await mags.submit("sleep 0.5; echo done")
        await mags.reaches(request_id, "running")
        # Our connection breaks (as when the server restarts) and comes back by itself.
        transport = mags.world.connection._transport
        assert transport is not None
        transport.close()  # type: ignore[no-untyped-call]
        assert (await mags.reaches(request_id, "completed", "error"))["status"] == "completed"
        assert (await mags.run("true"))["status"] == "completed"
        assert host.count("start") == 2


async def test_a_revoked_bootstrap_token_does_not_come_back(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    async with nats_server(tmp_path / "nats", jetstream=True) as url:
        async with installation(tmp_path, url) as mags:
            made: Installation = mags
            new = (await made.api.post("/tokens", json={"name": "mine"})).json()["token"]
            tokens = (await made.api.get("/tokens")).json()["tokens"]
            bootstrap = next(token for token in tokens if token["name"] == "bootstrap")
            async with client(made.url, new) as api:
                assert (await api.delete(f"/tokens/{bootstrap['id']}")).status_code == 200
                assert (await made.api.get("/me")).status_code == 401
        async with installation(tmp_path, url) as mags:
            assert (await mags.api.get("/me")).status_code == 200, "the file is the operator's way back in"
