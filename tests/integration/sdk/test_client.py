"""Mags and AsyncMags against a real control."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from mags import AsyncMags, Mags, MagsError, NotAuthorized, NotFound
from mags.sdk.frames import End
from tests.integration.sdk.conftest import PATIENCE, Server

pytestmark = pytest.mark.timeout(120)


def test_a_script_runs_and_tells_everything(m: Mags) -> None:
    result = m.run_and_wait("echo one; echo two >&2; exit 3", name="told", environment={"A": "b"})
    assert (result["status"], result["exit_code"]) == ("error", 3)
    assert {(line["stream"], line["message"]) for line in result["logs"]} == {("stdout", "one"), ("stderr", "two")}
    job = m.find_job("told")
    assert job is not None and job["request_id"] == result["request_id"] and job["exit_code"] == 3
    assert [line["message"] for line in m.logs("told")["logs"]] == ["one", "two"]
    assert m.list_jobs(page_size=100)["total"] >= 1


def test_output_comes_exactly(m: Mags) -> None:
    request_id = m.run(r"printf 'a\377\000b'; head -c 300000 /dev/zero")["request_id"]
    *chunks, end = m.stream_output(request_id)
    data = b"".join(chunk.data for chunk in chunks if not isinstance(chunk, End) and chunk.stream == 1)
    assert data == b"a\xff\0b" + bytes(300_000)
    assert end == End(0, None, "completed")


def test_lines_come_while_the_script_runs(m: Mags) -> None:
    request_id = m.run("echo begun; read line; echo never", name="streamed")["request_id"]
    lines = m.stream_logs(request_id)
    assert next(lines)["message"] == "begun"
    m.stop("streamed")
    assert [line["message"] for line in lines if line["stream"] == "stdout"] in ([], ["never"])


def test_a_sandbox_runs_commands_and_keeps_files(m: Mags, tmp_path: Path) -> None:
    with m.sandbox("box") as box:
        answer = box.run('echo "$A"; cat; exit 4', environment={"A": "x"}, stdin="in")
        assert (answer["exit_code"], answer["stdout"], answer["output"]) == (4, "x\nin", "x\nin")
        assert box.run(["printf", "%s", "a b"])["stdout"] == "a b"
        assert box.status()["status"] == "running"
        path = str(tmp_path / "file")
        box.write_file(path, b"\0binary\xff", mode=0o640)
        assert box.read_file(path) == b"\0binary\xff"
        assert [entry["name"] for entry in box.list_files(str(tmp_path))] == ["file"]
        box.delete_file(path)
        with pytest.raises(MagsError):
            box.read_file(path)
    assert m.status("box")["status"] == "completed"


def test_a_process_is_talked_to_while_it_runs(m: Mags) -> None:
    with m.sandbox() as box:
        with box.start("cat; echo end >&2; exit 5") as process:
            process.write(b"hello\n")
            chunks = iter(process)
            assert next(chunks).data == b"hello\n"
            process.close_stdin()
            rest = list(chunks)
            assert [(chunk.stream, chunk.data) for chunk in rest] == [(2, b"end\n")]
            assert process.exit_code == 5
        with box.start("trap 'exit 6' INT; echo up; while :; do sleep 0.05; done") as process:
            assert next(iter(process)).data == b"up\n"
            process.signal("INT")
            assert process.wait() == 6


def test_a_process_takes_more_than_fits_on_the_way(m: Mags) -> None:
    data = os.urandom(5_000_000)
    with m.sandbox() as box, box.start("cat") as process:

        def feed() -> None:
            process.write(data)
            process.close_stdin()

        feeder = threading.Thread(target=feed)
        feeder.start()
        assert b"".join(chunk.data for chunk in process) == data
        feeder.join(PATIENCE)
        assert process.exit_code == 0


def test_a_terminal_is_one(m: Mags) -> None:
    with m.sandbox() as box, box.start("tty >/dev/null && stty size", pty=(33, 101)) as process:
        assert b"".join(chunk.data for chunk in process).strip() == b"33 101"


def test_a_process_in_a_vm_that_is_not_there_is_refused(m: Mags) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        m.exec_stream("nowhere", "true")
    with pytest.raises(MagsError), m.sandbox() as box, box.start(timeout=-1) as process:
        process.wait()


def test_a_bad_token_is_said(server: Server) -> None:
    with Mags("bad-token", server.url) as stranger:
        with pytest.raises(NotAuthorized, match="token"):
            stranger.list_jobs()
        with pytest.raises(NotAuthorized):
            stranger.exec_stream("x", "true")


def test_files_are_uploaded_and_listed(m: Mags, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(2_000_000))
    file_id = m.upload_file(tmp_path / "data.bin")
    found = [file for file in m.list_uploads()["files"] if file["file_id"] == file_id]
    assert found[0]["size"] == 2_000_000 and found[0]["name"] == "data.bin"
    m.delete_upload(file_id)
    assert file_id not in [file["file_id"] for file in m.list_uploads()["files"]]


def test_a_key_makes_a_repeated_submission_one(m: Mags, server: Server) -> None:
    """As after a lost answer: the same request reaches the server twice."""
    from mags.sdk.calls import jobs
    from mags.sdk.wire import Wire

    request = jobs.run("true").request(server.token, "test")
    answers = []
    for _ in range(2):
        wire = Wire(server.url)
        answers.append(b"".join(wire.open(request).chunks()))
        wire.close()
    assert answers[0] == answers[1]


def test_cron_tokens_aliases_and_the_rest_answer(m: Mags) -> None:
    cron = m.cron_create(name="c", cron_expression="0 0 * * *", script="true", timezone="Europe/Berlin")
    assert m.cron_update(cron["id"], enabled=False)["enabled"] is False
    assert m.cron_get(cron["id"])["name"] == "c" and m.cron_list()["total"] == 1
    m.cron_delete(cron["id"])
    token = m.create_token("t")
    assert token["token"] and token["id"] in [one["id"] for one in m.list_tokens()["tokens"]]
    m.delete_token(token["id"])
    assert m.url_alias_list()["aliases"] == []
    assert m.usage(window_days=7)["window_days"] == 7
    assert m.pool_status()["hosts"] and m.health()["status"] == "ok" and m.me()["name"]
    assert isinstance(m.list_workspaces()["workspaces"], list)


async def test_the_asyncio_twin_does_it_too(server: Server) -> None:
    async with AsyncMags(server.token, server.url, timeout=PATIENCE) as m, asyncio.timeout(PATIENCE):
        results = await asyncio.gather(*(m.run_and_wait(f"echo {n}") for n in range(5)))
        assert [result["logs"][0]["message"] for result in results] == list("01234")
        async with m.sandbox() as box:
            assert (await box.run("echo hi"))["stdout"] == "hi\n"
            async with box.start("cat; exit 7") as process:
                await process.write(b"x")
                await process.close_stdin()
                assert [chunk.data async for chunk in process] == [b"x"]
                assert process.exit_code == 7
        with pytest.raises(NotFound):
            async with m.exec_stream("nowhere", "true"):
                pass
