"""The client against a real control."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from mags import AsyncMags, MagsError, NotAuthorized, NotFound
from mags.sdk.frames import End
from tests.integration.sdk.conftest import PATIENCE, Server

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def m(server: Server) -> AsyncGenerator[AsyncMags, None]:
    async with AsyncMags(server.token, server.url, timeout=PATIENCE) as client:
        yield client


async def test_a_script_runs_and_tells_everything(m: AsyncMags) -> None:
    result = await m.run_and_wait("echo one; echo two >&2; exit 3", name="told", environment={"A": "b"})
    assert (result["status"], result["exit_code"]) == ("error", 3)
    assert {(line["stream"], line["message"]) for line in result["logs"]} == {("stdout", "one"), ("stderr", "two")}
    job = await m.find_job("told")
    assert job is not None and job["request_id"] == result["request_id"] and job["exit_code"] == 3
    assert [line["message"] for line in (await m.logs("told"))["logs"]] == ["one", "two"]
    assert (await m.list_jobs(page_size=100))["total"] >= 1


async def test_output_comes_exactly(m: AsyncMags) -> None:
    request_id = (await m.run(r"printf 'a\377\000b'; head -c 300000 /dev/zero"))["request_id"]
    *chunks, end = [part async for part in m.stream_output(request_id)]
    data = b"".join(chunk.data for chunk in chunks if not isinstance(chunk, End) and chunk.stream == 1)
    assert data == b"a\xff\0b" + bytes(300_000)
    assert end == End(0, None, "completed")


async def test_lines_come_while_the_script_runs(m: AsyncMags) -> None:
    request_id = (await m.run("echo begun; read line; echo never", name="streamed"))["request_id"]
    lines = m.stream_logs(request_id)
    assert (await anext(lines))["message"] == "begun"
    await m.stop("streamed")
    assert [line["message"] async for line in lines if line["stream"] == "stdout"] in ([], ["never"])


async def test_a_sandbox_runs_commands_and_keeps_files(m: AsyncMags, tmp_path: Path) -> None:
    async with m.sandbox("box") as box:
        answer = await box.run('echo "$A"; cat; exit 4', environment={"A": "x"}, stdin="in")
        assert (answer["exit_code"], answer["stdout"], answer["output"]) == (4, "x\nin", "x\nin")
        assert (await box.run(["printf", "%s", "a b"]))["stdout"] == "a b"
        assert (await box.status())["status"] == "running"
        path = str(tmp_path / "file")
        await box.write_file(path, b"\0binary\xff", mode=0o640)
        assert await box.read_file(path) == b"\0binary\xff"
        assert [entry["name"] for entry in await box.list_files(str(tmp_path))] == ["file"]
        await box.delete_file(path)
        with pytest.raises(MagsError):
            await box.read_file(path)
    assert (await m.status("box"))["status"] == "completed"


async def test_a_process_is_talked_to_while_it_runs(m: AsyncMags) -> None:
    async with m.sandbox() as box:
        async with box.start("cat; echo end >&2; exit 5") as process:
            await process.write(b"hello\n")
            chunks = aiter(process)
            assert (await anext(chunks)).data == b"hello\n"
            await process.close_stdin()
            rest = [chunk async for chunk in chunks]
            assert [(chunk.stream, chunk.data) for chunk in rest] == [(2, b"end\n")]
            assert process.exit_code == 5
        async with box.start("trap 'exit 6' INT; echo up; while :; do sleep 0.05; done") as process:
            assert (await anext(aiter(process))).data == b"up\n"
            await process.signal("INT")
            assert await process.wait() == 6


async def test_a_terminal_is_one(m: AsyncMags) -> None:
    async with m.sandbox() as box, box.start("tty >/dev/null && stty size", pty=(33, 101)) as process:
        assert b"".join([chunk.data async for chunk in process]).strip() == b"33 101"


async def test_a_process_in_a_vm_that_is_not_there_is_refused(m: AsyncMags) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        async with m.exec_stream("nowhere", "true"):
            pass
    with pytest.raises(MagsError):
        async with m.sandbox() as box, box.start(timeout=-1) as process:
            await process.wait()


async def test_a_process_begins_with_its_block(m: AsyncMags) -> None:
    with pytest.raises(RuntimeError, match="with"):
        await m.exec_stream("nowhere", "true").write(b"x")


async def test_a_bad_token_is_said(server: Server) -> None:
    async with AsyncMags("bad-token", server.url) as stranger:
        with pytest.raises(NotAuthorized, match="token"):
            await stranger.list_jobs()
        with pytest.raises(NotAuthorized):
            async with stranger.exec_stream("x", "true"):
                pass


async def test_files_are_uploaded_and_listed(m: AsyncMags, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(2_000_000))
    file_id = await m.upload_file(tmp_path / "data.bin")
    found = [file for file in (await m.list_uploads())["files"] if file["file_id"] == file_id]
    assert found[0]["size"] == 2_000_000 and found[0]["name"] == "data.bin"
    await m.delete_upload(file_id)
    assert file_id not in [file["file_id"] for file in (await m.list_uploads())["files"]]


async def test_cron_tokens_aliases_and_the_rest_answer(m: AsyncMags) -> None:
    cron = await m.cron_create(name="c", cron_expression="0 0 * * *", script="true", timezone="Europe/Berlin")
    assert (await m.cron_update(cron["id"], enabled=False))["enabled"] is False
    assert (await m.cron_get(cron["id"]))["name"] == "c" and (await m.cron_list())["total"] == 1
    await m.cron_delete(cron["id"])
    token = await m.create_token("t")
    assert token["token"] and token["id"] in [one["id"] for one in (await m.list_tokens())["tokens"]]
    await m.delete_token(token["id"])
    assert (await m.url_alias_list())["aliases"] == []
    assert (await m.usage(window_days=7))["window_days"] == 7
    assert (await m.pool_status())["hosts"] and (await m.health())["status"] == "ok" and (await m.me())["name"]
    assert isinstance((await m.list_workspaces())["workspaces"], list)
