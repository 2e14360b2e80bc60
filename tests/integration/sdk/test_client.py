# Made from test_async_client.py by `./dev fmt`; edit that.
"""The client against a real control."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from mags import Mags, MagsError, NotAuthorized, NotFound
from mags.sdk.frames import End
from tests.integration.sdk.conftest import PATIENCE, Server

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def m(server: Server) -> Generator[Mags, None, None]:
    with Mags(server.token, server.url, timeout=PATIENCE) as client:
        yield client


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
    *chunks, end = list(m.stream_output(request_id))
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


def test_a_terminal_is_one(m: Mags) -> None:
    with m.sandbox() as box, box.start("tty >/dev/null && stty size", pty=(33, 101)) as process:
        assert b"".join([chunk.data for chunk in process]).strip() == b"33 101"


def test_a_process_in_a_vm_that_is_not_there_is_refused(m: Mags) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        with m.exec_stream("nowhere", "true"):
            pass
    with pytest.raises(MagsError):
        with m.sandbox() as box, box.start(timeout=-1) as process:
            process.wait()


def test_a_process_begins_with_its_block(m: Mags) -> None:
    with pytest.raises(RuntimeError, match="with"):
        m.exec_stream("nowhere", "true").write(b"x")


def test_a_bad_token_is_said(server: Server) -> None:
    with Mags("bad-token", server.url) as stranger:
        with pytest.raises(NotAuthorized, match="token"):
            stranger.list_jobs()
        with pytest.raises(NotAuthorized):
            with stranger.exec_stream("x", "true"):
                pass


def test_files_are_uploaded_and_listed(m: Mags, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(2_000_000))
    file_id = m.upload_file(tmp_path / "data.bin")
    found = [file for file in m.list_uploads()["files"] if file["file_id"] == file_id]
    assert found[0]["size"] == 2_000_000 and found[0]["name"] == "data.bin"
    m.delete_upload(file_id)
    assert file_id not in [file["file_id"] for file in m.list_uploads()["files"]]


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
