from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from mags.sdk.frames import HEAD
from mags.sdk.testing import Answer, SeenRequest
from tests.unit.cli.conftest import Handler, Mags


def frames(
    *chunks: tuple[int, bytes], exit_code: int | None = 0, error: str | None = None, status: str = "completed"
) -> bytes:
    end = json.dumps({"exit_code": exit_code, "error": error, "status": status}).encode()
    return b"".join(HEAD.pack(stream, len(data)) + data for stream, data in [*chunks, (0, end)])


def job(*chunks: tuple[int, bytes], **end: Any) -> Handler:
    def handler(request: SeenRequest) -> Answer:
        if request.method == "POST":
            return 202, {"request_id": "42", "status": "accepted", "warnings": end.pop("warnings", [])}
        return frames(*chunks, **end)

    return handler


@pytest.fixture(autouse=True)
def handlers_come_back() -> Any:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_stdout_is_the_scripts_and_nothing_else(mags: Mags) -> None:
    outcome = mags("run", "echo hi", answer=job((1, b"hi\n"), (2, b"oops\n"), (3, b"platform\n")))
    assert (outcome.status, outcome.out, outcome.err) == (0, "hi\n", "oops\nplatform\n")


@pytest.mark.parametrize(("end", "status"), [
    ({"exit_code": 7, "status": "error"}, 7),
    ({"exit_code": 124, "status": "error", "error": "The script took too long."}, 124),
    ({"exit_code": 300, "status": "error"}, 44),
    ({"exit_code": None, "status": "error", "error": "Its VM died."}, 125),
    ({"exit_code": None, "status": "completed", "error": None}, 0),
])  # fmt: skip
def test_the_exit_status_is_the_scripts_or_125(mags: Mags, end: dict[str, Any], status: int) -> None:
    outcome = mags("run", "true", answer=job(**end))
    assert outcome.status == status
    if status == 125:
        assert outcome.err == "error: Its VM died.\n"


def test_every_flag_reaches_the_server(mags: Mags) -> None:
    outcome = mags(
        "run", "-w", "w", "-n", "n", "-p", "--base", "b", "--env", "A=1", "--env", "B=x=y", "--url", "--port", "80",
        "--no-sleep", "--no-sync", "--startup-command", "s", "--idle", "60", "--disk", "5", "--cpus", "2", "--memory",
        "1024", "--image", "debian", "--timeout", "9", "-d", "echo", "hi", answer=(202, {"request_id": "42"}),
    )  # fmt: skip
    assert (outcome.status, outcome.out) == (0, "42\n")
    assert outcome.seen[0].json == {
        "script": "echo hi", "type": "inline", "workspace_id": "w", "name": "n", "persistent": True,
        "base_workspace_id": "b", "environment": {"A": "1", "B": "x=y"}, "url": True, "port": 80, "no_sleep": True,
        "no_sync": True, "startup_command": "s", "idle_timeout": 60, "disk_gb": 5, "vcpus": 2, "memory_mb": 1024,
        "image": "debian", "timeout": 9,
    }  # fmt: skip


def test_flags_may_follow_the_script(mags: Mags) -> None:
    outcome = mags("run", "echo hi", "-w", "w", "-e", "-d", answer=(202, {"request_id": "42"}))
    assert outcome.status == 2 and "exclude" in outcome.err and not outcome.seen


def test_a_script_comes_from_a_file_stdin_or_a_url(mags: Mags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.sh").write_text("echo file\n")
    assert mags("run", "-d", f"@{tmp_path}/s.sh", answer={"request_id": "1"}).seen[0].json["script"] == "echo file\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"echo stdin\n")))
    assert mags("run", "-d", "-", answer={"request_id": "1"}).seen[0].json["script"] == "echo stdin\n"
    body = mags("run", "-d", "--script-url", "https://x/y", answer={"request_id": "1"}).seen[0].json
    assert (body["type"], body["script"]) == ("url", "https://x/y")


@pytest.mark.parametrize("script", ["", "  \n", "@/no/such/file"])
def test_a_script_that_is_none_is_misuse(mags: Mags, script: str) -> None:
    outcome = mags("run", script)
    assert outcome.status == 2 and not outcome.seen


def test_a_script_that_is_no_text_is_misuse(mags: Mags, tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"\x7fELF\xff\xfe")
    outcome = mags("run", f"@{tmp_path}/program")
    assert outcome.status == 2 and "--file" in outcome.err


@pytest.mark.parametrize("word", ["1A=x", "=x", "A B=x", "MAGS_NOT_SET_HERE"])
def test_an_environment_that_is_none_is_misuse(mags: Mags, word: str) -> None:
    assert mags("run", "--env", word, "true").status == 2


def test_an_environment_may_be_taken_from_here(mags: Mags, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "yes")
    outcome = mags("run", "-d", "--env", "FROM_HERE", "true", answer={"request_id": "1"})
    assert outcome.seen[0].json["environment"] == {"FROM_HERE": "yes"}


def test_files_are_uploaded_first(mags: Mags, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("A")

    def handler(request: SeenRequest) -> Answer:
        return {"file_id": "f1"} if request.path == "/mags-files" else {"request_id": "42"}

    outcome = mags("run", "-d", "-f", str(tmp_path / "a"), "cat a", answer=handler)
    assert [request.path for request in outcome.seen] == ["/mags-files", "/mags-jobs"]
    assert outcome.seen[1].json["file_ids"] == ["f1"] and "uploading" in outcome.err
    outcome = mags("run", "-d", "-f", str(tmp_path / "missing"), "true", answer=handler)
    assert outcome.status == 2 and not outcome.seen


def test_warnings_go_to_stderr(mags: Mags) -> None:
    outcome = mags("run", "true", answer=job(warnings=["Unknown field 'x'."]))
    assert outcome.err == "warning: Unknown field 'x'.\n"


def test_the_url_is_told_before_the_output(mags: Mags) -> None:
    def handler(request: SeenRequest) -> Answer:
        if request.path.endswith("/status"):
            return {"url": "http://abc.apps.localhost:4281"}
        return {"request_id": "42"} if request.method == "POST" else frames((1, b"serving\n"))

    outcome = mags("run", "-p", "--url", "serve", answer=handler)
    assert outcome.err == "open at http://abc.apps.localhost:4281\n" and outcome.out == "serving\n"


def test_ctrl_c_stops_the_job(mags: Mags) -> None:
    def handler(request: SeenRequest) -> Answer:
        if request.path.endswith("/logs"):
            raise KeyboardInterrupt
        return {"request_id": "42"}

    outcome = mags("run", "sleep 1000", answer=handler)
    assert outcome.status == 130 and outcome.seen[-1].path == "/mags-jobs/42/stop"


def test_ctrl_c_before_the_answer_stops_what_was_begun(mags: Mags) -> None:
    keys = []

    def handler(request: SeenRequest) -> Answer:
        if request.path == "/mags-jobs":
            keys.append(request.headers["Idempotency-Key"])
            if len(keys) == 1:
                raise KeyboardInterrupt
        return {"request_id": "42"}

    outcome = mags("run", "sleep 1000", answer=handler)
    assert outcome.status == 130 and outcome.seen[-1].path == "/mags-jobs/42/stop"
    assert len(keys) == 2 and len(set(keys)) == 1
    assert outcome.seen[0].json == outcome.seen[1].json


def test_ctrl_c_while_the_server_has_no_room_leaves_nothing_to_stop(mags: Mags) -> None:
    def handler(request: SeenRequest) -> Answer:
        if len(seen) == 0:
            seen.append(request)
            raise KeyboardInterrupt
        return 503, {"error": "Every host is full.", "code": "no_capacity", "details": {"retry_after": 5}}

    seen: list[SeenRequest] = []
    outcome = mags("run", "sleep 1000", answer=handler)
    assert outcome.status == 130 and [request.path for request in outcome.seen] == ["/mags-jobs"] * 2
    assert outcome.err == "error: Interrupted.\n"


def test_a_stop_that_fails_says_so(mags: Mags) -> None:
    def handler(request: SeenRequest) -> Answer:
        if request.path.endswith("/logs"):
            raise KeyboardInterrupt
        return (500, {"error": "No."}) if request.path.endswith("/stop") else {"request_id": "42"}

    outcome = mags("run", "sleep 1000", answer=handler)
    assert outcome.status == 130 and "mags stop 42" in outcome.err


def test_json_is_for_the_detached(mags: Mags) -> None:
    assert mags("run", "--json", "true").status == 2
    assert json.loads(mags("run", "--json", "-d", "true", answer={"request_id": "1"}).out) == {"request_id": "1"}


def test_a_refusal_is_125(mags: Mags) -> None:
    outcome = mags("run", "true", answer=(422, {"error": "There is no image 'x'.", "code": "invalid"}))
    assert (outcome.status, outcome.err) == (125, "error: There is no image 'x'.\n")
