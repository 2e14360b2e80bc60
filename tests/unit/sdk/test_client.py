# Made from test_async_client.py by `./dev fmt`; edit that.
"""The client over a scripted transport."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mags import (
    Busy,
    Mags,
    MagsError,
    MockTransport,
    NotReachable,
    ServerFailed,
    TransferFailed,
    WaitTimeout,
)
from mags.sdk.calls import jobs
from mags.sdk.frames import HEAD, Chunk, End
from mags.sdk.sender import Sender
from mags.sdk.settings import Settings
from mags.sdk.testing import Answer, SeenRequest
from mags.sdk.transports import ConnectionBroke

JOB: dict[str, Any] = {
    "request_id": "42",
    "status": "completed",
    "exit_code": 0,
    "vm_id": "v",
    "script_duration_ms": 12,
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mags.sdk.retries.backoff", lambda failures: 0.0)


def client(handler: Callable[[SeenRequest], Answer], **options: Any) -> tuple[Mags, MockTransport]:
    transport = MockTransport(handler)
    return Mags("token", "http://mags.test", transport=transport, **options), transport


def answers(*given: Answer) -> Callable[[SeenRequest], Answer]:
    left = list(given)
    return lambda request: left.pop(0)


def events(*lines: str, exit_code: int | None = 0, status: str = "completed") -> bytes:
    text = ""
    for number, line in enumerate(lines, start=1):
        text += f"id: {number}\ndata: {json.dumps({'stream': 'stdout', 'message': line, 'timestamp': 't'})}\n\n"
    return (
        text + f"event: end\ndata: {json.dumps({'exit_code': exit_code, 'error': None, 'status': status})}\n\n"
    ).encode()


def test_a_request_carries_token_and_agent() -> None:
    m, transport = client(answers(JOB))
    assert m.status("42") == JOB
    assert transport.seen[0].headers["Authorization"] == "Bearer token"
    assert transport.seen[0].headers["User-Agent"].startswith("mags/")


def test_an_error_has_the_servers_words() -> None:
    m, _ = client(answers((404, {"error": "There is no job 'x'.", "code": "not_found", "details": {"id": "x"}})))
    with pytest.raises(MagsError, match="There is no job") as raised:
        m.status("x")
    assert (raised.value.status_code, raised.value.code, raised.value.details) == (404, "not_found", {"id": "x"})


def test_a_busy_server_is_asked_again_with_the_same_key() -> None:
    m, transport = client(
        answers((503, {"error": "Full."}), (429, {}), (202, {"request_id": "1", "status": "accepted"}))
    )
    assert m.run("true")["request_id"] == "1"
    assert len({request.headers["Idempotency-Key"] for request in transport.seen}) == 1


def test_a_server_that_stays_busy_is_reported() -> None:
    m, transport = client(lambda _: (503, {"error": "Full.", "code": "no_capacity"}), max_tries=3)
    with pytest.raises(Busy, match="Full"):
        m.run("true")
    assert len(transport.seen) == 3


def test_a_lost_connection_is_made_again_for_what_may_be_repeated() -> None:
    m, transport = client(answers(ConnectionBroke("gone", sent=True), {"request_id": "1"}))
    assert m.run("true")["request_id"] == "1"
    m, transport = client(answers(ConnectionBroke("gone", sent=True)))
    with pytest.raises(NotReachable, match="lost"):
        m.exec("x", "rm -r /data")
    assert len(transport.seen) == 1


@pytest.mark.parametrize(
    ("broke", "words"),
    [
        (ConnectionBroke("x", sent=False, refused=True), "mags up"),
        (ConnectionBroke("name", sent=False), "MAGS_API_URL"),
        (ConnectionBroke("silence", sent=True, timed_out=True), "may still be at work"),
    ],
)
def test_no_answer_says_what_to_do(broke: ConnectionBroke, words: str) -> None:
    m, _ = client(lambda _: broke, max_tries=1)
    with pytest.raises(NotReachable, match=words):
        m.status("x")


@pytest.mark.parametrize("body", [b"<html>", b"\xff"])
def test_an_answer_that_is_no_json_is_refused(body: bytes) -> None:
    m, _ = client(answers(body))
    with pytest.raises(TransferFailed, match="JSON"):
        m.status("x")


def test_an_empty_answer_is_an_empty_record() -> None:
    m, _ = client(answers(b""))
    assert m.stop("x") == {}


def test_run_and_wait_brings_everything_together() -> None:
    m, transport = client(
        answers((202, {"request_id": "42"}), events("one", "two", exit_code=3), {**JOB, "status": "error"})
    )
    result = m.run_and_wait("script", name="n")
    assert (result["exit_code"], result["status"], result["duration_ms"]) == (3, "error", 12)
    assert [line["message"] for line in result["logs"]] == ["one", "two"]
    assert transport.seen[0].json["name"] == "n"


def test_run_and_wait_gives_up_in_time() -> None:
    m, _ = client(answers({"request_id": "42"}, ConnectionBroke("silence", sent=True, timed_out=True)))
    with pytest.raises(WaitTimeout, match="still running"):
        m.run_and_wait("sleep 100", timeout=0)


def test_logs_go_on_where_the_connection_broke() -> None:
    first = events("one").split(b"event: end")[0]
    m, transport = client(answers(first, ConnectionBroke("gone", sent=True), events("two")))
    assert [line["message"] for line in m.stream_logs("42")] == ["one", "two"]
    assert [request.headers.get("Last-Event-ID") for request in transport.seen] == [None, "1", "1"]


def test_lines_may_begin_near_the_end() -> None:
    m, transport = client(answers(events("two")))
    assert [line["message"] for line in m.stream_logs("42", since="2026-01-31T12:00:00Z", tail=1)] == ["two"]
    assert transport.seen[0].query == {"follow": "1", "since": "2026-01-31T12:00:00Z", "tail": "1"}


def test_output_goes_on_where_the_connection_broke() -> None:
    end = json.dumps({"exit_code": 0, "error": None, "status": "completed"}).encode()
    whole = HEAD.pack(1, 3) + b"abc"
    m, transport = client(
        answers(whole + HEAD.pack(1, 3) + b"d", HEAD.pack(1, 3) + b"def" + HEAD.pack(0, len(end)) + end)
    )
    parts = list(m.stream_output("42"))
    assert parts == [Chunk(1, b"abc"), Chunk(1, b"def"), End(0, None, "completed")]
    assert transport.seen[1].query == {"follow": "1", "stdout_offset": "3"}


def test_a_stream_that_never_ends_is_given_up() -> None:
    m, transport = client(lambda _: b"", max_tries=3)
    with pytest.raises(TransferFailed, match="before the script"):
        list(m.stream_output("42"))
    assert len(transport.seen) == 3


def test_a_stream_outlasts_a_server_that_is_started_again() -> None:
    refused = ConnectionBroke("no", sent=False, refused=True)
    first = events("one").split(b"event: end")[0]
    m, _ = client(answers(first, *[refused] * 12, (503, {}), events("two")))
    assert [line["message"] for line in m.stream_logs("42")] == ["one", "two"]
    m, transport = client(answers(*[refused] * 12))
    with pytest.raises(NotReachable):
        next(m.stream_logs("42"))
    assert len(transport.seen) == 5


def test_new_waits_until_it_is_up() -> None:
    states = answers({"request_id": "42"}, {**JOB, "status": "pending", "vm_id": None}, {**JOB, "status": "running"})
    m, transport = client(states)
    assert m.new("dev") == {"request_id": "42", "status": "running"}
    body = transport.seen[0].json
    assert (body["workspace_id"], body["persistent"], body["no_sync"]) == ("dev", True, True)


def test_a_synced_sandbox_is_one_that_syncs() -> None:
    m, transport = client(answers({"request_id": "42"}, {**JOB, "status": "running"}))
    m.new("dev", persistent=True, disk_gb=7)
    assert "no_sync" not in transport.seen[0].json and transport.seen[0].json["disk_gb"] == 7


def test_new_says_why_it_did_not_come_up() -> None:
    m, _ = client(answers({"request_id": "42"}, {**JOB, "status": "error", "error": "No image 'x'"}))
    with pytest.raises(ServerFailed, match="No image"):
        m.new("dev")
    m, _ = client(lambda _: {**JOB, "status": "pending"})
    with pytest.raises(WaitTimeout):
        m.new("dev", timeout=0)


def test_find_job_finds_or_not() -> None:
    m, _ = client(answers(JOB, (404, {"error": "no"})))
    assert m.find_job("x") == JOB
    assert m.find_job("y") is None


def test_exec_has_the_published_names_too() -> None:
    m, transport = client(answers({"exit_code": 1, "stdout": "o", "stderr": "e", "duration_ms": 3, "truncated": False}))
    result = m.exec("dev", ["ls", "-l"], timeout=5, workdir="/tmp")
    assert (result["output"], result["stdout"], result["stderr"], result["exit_code"]) == ("o", "o", "e", 1)
    assert transport.seen[0].json == {"command": ["ls", "-l"], "timeout": 5, "workdir": "/tmp"}


def test_resize_grows_in_place_and_brings_the_vm_up() -> None:
    m, transport = client(answers({}, {**JOB, "status": "running"}))
    assert m.resize("w", 9) == {"request_id": "42", "status": "running"}
    assert transport.seen[0].path == "/mags-workspaces/w/resize"
    m, transport = client(answers({}, (404, {}), {"request_id": "7"}, {**JOB, "status": "running"}))
    assert m.resize("w", 9) == {"request_id": "7", "status": "running"}


def test_a_port_is_opened() -> None:
    m, transport = client(answers({"success": True, "url": "u"}))
    assert m.url("dev", port=80)["url"] == "u"
    assert (transport.seen[0].path, transport.seen[0].json) == ("/mags-jobs/dev/access", {"port": 80})


def test_files_go_both_ways(tmp_path: Path) -> None:
    local = tmp_path / "f"
    local.write_bytes(b"local")
    m, transport = client(answers(b"content", {}, {}, {}, {"entries": [{"name": "a"}]}))
    assert m.read_file("dev", "/f") == b"content"
    m.write_file("dev", "/f", "text", mode=0o600)
    m.write_file("dev", "/f", local)
    m.write_file("dev", "/f", io.BytesIO(b"open file"))
    assert [request.body for request in transport.seen[1:]] == [b"text", b"local", b"open file"]
    assert transport.seen[1].query == {"path": "/f", "mode": "600"}
    assert [entry["name"] for entry in m.list_files("dev", "/")] == ["a"]
    with pytest.raises(MagsError, match="no file"):
        m.write_file("dev", "/f", tmp_path / "missing")


def test_what_comes_by_a_pipe_is_sent_once() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as source:
        source.write(b"first half, second half")
    m, transport = client(answers(ConnectionBroke("gone", sent=True)))
    with os.fdopen(reader, "rb") as pipe, pytest.raises(NotReachable):
        m.write_file("dev", "/f", pipe)
    assert len(transport.seen) == 1


def test_workspaces_leave_and_come_as_archives(tmp_path: Path) -> None:
    file = tmp_path / "w.tar"
    m, transport = client(answers(b"archive", {"workspace_id": "w"}, (404, {"error": "None."})))
    m.export_workspace("w", file)
    assert file.read_bytes() == b"archive" and [*tmp_path.iterdir()] == [file]
    m.import_workspace("w", file, disk_gb=3)
    assert (transport.seen[1].body, transport.seen[1].query) == (b"archive", {"disk_gb": "3"})
    with pytest.raises(MagsError):
        m.export_workspace("w", tmp_path / "none")
    assert [*tmp_path.iterdir()] == [file]


def test_an_upload_is_multipart_and_may_be_sent_twice(tmp_path: Path) -> None:
    local = tmp_path / 'we"ird\n.txt'
    local.write_bytes(b"data")
    m, transport = client(answers(ConnectionBroke("gone", sent=True), {"file_id": "f1"}, {"file_id": "f2"}))
    assert m.upload_files([str(local), local]) == ["f1", "f2"]
    first, again, _ = transport.seen
    assert first.body == again.body
    assert first.headers["Content-Length"] == str(len(first.body))
    boundary = first.headers["Content-Type"].partition("boundary=")[2].encode()
    assert first.body.startswith(b"--" + boundary + b"\r\n") and first.body.endswith(b"--" + boundary + b"--\r\n")
    assert b'filename="we%22ird%0A.txt"' in first.body and b"\r\n\r\ndata\r\n" in first.body
    with pytest.raises(MagsError, match="no file"):
        m.upload_file(tmp_path / "missing")


def test_a_sandbox_is_stopped_whatever_happens() -> None:
    def handler(request: SeenRequest) -> Answer:
        if request.path.endswith("/files"):
            return b"content"
        return {**JOB, "status": "running", "url": "u"}

    m, transport = client(handler)
    with pytest.raises(ZeroDivisionError):
        with m.sandbox("dev") as sandbox:
            assert sandbox.run("true")["exit_code"] == 0
            assert sandbox.read_file("/f") == b"content"
            assert sandbox.url(80) == "u"
            raise ZeroDivisionError
    assert transport.seen[-1].path == "/mags-jobs/42/stop"
    m, transport = client(answers({"request_id": "42"}, {**JOB, "status": "error", "error": "bad"}, {}))
    with pytest.raises(ServerFailed):
        with m.sandbox():
            pass
    assert transport.seen[-1].path == "/mags-jobs/42/stop"


def test_closing_closes_the_transport() -> None:
    m, transport = client(answers())
    with m:
        pass
    assert transport.closed
    with pytest.raises(NotReachable):
        m.status("x")


def test_waits_between_tries_are_the_policys(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)

    transport = MockTransport(answers((503, {}, {"Retry-After": "4"}), JOB))
    sender = Sender(Settings("http://mags.test", "token"), transport, sleep=sleep)
    sender.send(jobs.status("42"))
    assert waits == [4.0]
