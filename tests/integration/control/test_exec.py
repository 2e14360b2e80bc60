"""Commands in VMs: one answer, or a WebSocket with both ways open."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from mags.protocol import subjects
from mags.protocol.messages import VmChanged, encode
from tests.integration.control.conftest import TOKEN, Installation

pytestmark = pytest.mark.asyncio(loop_scope="module")
DATABASES = ["sqlite"]


async def sandbox(mags: Installation, name: str) -> str:
    await mags.host()
    request_id = await mags.submit("sleep infinity", persistent=True, name=name, environment={"COLOUR": "red"})
    await mags.reaches(request_id, "running")
    return request_id


async def run(mags: Installation, reference: str, command: Any, **fields: Any) -> dict[str, Any]:
    answer = await mags.api.post(f"/mags-jobs/{reference}/exec", json={"command": command, **fields})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert isinstance(body, dict)
    return body


@asynccontextmanager
async def shell(mags: Installation, reference: str, **start: Any) -> AsyncIterator[ClientConnection]:
    url = f"{mags.url.replace('http', 'ws')}/api/v1/mags-jobs/{reference}/exec"
    async with websockets.connect(url, additional_headers={"Authorization": f"Bearer {TOKEN}"}, proxy=None) as socket:
        await socket.send(json.dumps({"type": "start", **start}))
        yield socket


async def conversation(socket: ClientConnection) -> tuple[dict[int, bytes], list[dict[str, Any]]]:
    """Everything until the server closes."""
    output: dict[int, bytes] = {1: b"", 2: b""}
    control = []
    with suppress(websockets.ConnectionClosedError):  # closed with another code than 1000
        async with asyncio.timeout(60):
            async for message in socket:
                if isinstance(message, bytes):
                    output[message[0]] += message[1:]
                else:
                    control.append(json.loads(message))
    return output, control


async def test_a_command_answers_with_its_output(mags: Installation) -> None:
    await sandbox(mags, "exec-1")
    body = await run(mags, "exec-1", "printf out; printf 'bad \\377' >&2; exit 3")
    assert (body["exit_code"], body["stdout"], body["stderr"], body["truncated"]) == (3, "out", "bad \ufffd", False)


async def test_a_command_gets_words_environment_and_stdin(mags: Installation) -> None:
    await sandbox(mags, "exec-2")
    assert (await run(mags, "exec-2", ["printf", "%s", "a b"]))["stdout"] == "a b"
    body = await run(mags, "exec-2", "cat; echo $COLOUR $SIZE", stdin="in ", environment={"SIZE": "big"})
    assert body["stdout"] == "in red big\n"


async def test_an_unknown_field_of_a_command_is_named(mags: Installation) -> None:
    await sandbox(mags, "exec-fields")
    answer = await mags.api.post("/mags-jobs/exec-fields/exec", json={"command": "true", "cwd": "/tmp"})
    assert answer.json()["exit_code"] == 0 and "cwd" in answer.json()["warnings"][0]


async def test_a_command_that_takes_too_long_answers_124(mags: Installation) -> None:
    await sandbox(mags, "exec-3")
    assert (await run(mags, "exec-3", "sleep 60", timeout=0.3))["exit_code"] == 124


async def test_output_beyond_the_limit_is_cut_and_says_so(mags: Installation) -> None:
    await sandbox(mags, "exec-4")
    body = await run(mags, "exec-4", "head -c 11000000 /dev/zero | tr '\\0' x")
    assert body["truncated"] and len(body["stdout"]) == 10 << 20


async def test_a_sleeping_vm_wakes_for_a_command(mags: Installation) -> None:
    await sandbox(mags, "exec-5")
    assert (await mags.api.post("/mags-jobs/exec-5/sleep")).json()["status"] == "sleeping"
    await mags.reaches("exec-5", "sleeping")
    record = (await mags.api.get("/mags-jobs/exec-5")).json()
    assert record["removed_at"] is not None, "its files are nowhere else"
    # It can't wake, says its host; that does not put off its removal.
    reason = "The VM can't wake now. The memory of host h1 is used up."
    host = await mags.host()
    event = VmChanged(vm_id=record["vm_id"], state="sleeping", reason=reason, at_ms=time.time_ns() // 10**6)
    await mags.nats.jetstream(timeout=30).publish(subjects.event(host.host_id), encode(event))
    async with asyncio.timeout(60):
        while (said := (await mags.api.get("/mags-jobs/exec-5")).json())["vm_reason"] is None:
            await asyncio.sleep(0.02)
    assert (said["vm_reason"], said["removed_at"]) == (reason, record["removed_at"])
    assert (await run(mags, "exec-5", "echo awake"))["stdout"] == "awake\n"
    await mags.reaches("exec-5", "running")


async def test_a_command_for_a_vm_that_is_gone_is_a_conflict(mags: Installation) -> None:
    await mags.host()
    body = await mags.run("true")
    answer = await mags.api.post(f"/mags-jobs/{body['request_id']}/exec", json={"command": "id"})
    assert answer.status_code in (404, 409, 410)


async def test_a_command_waits_for_a_vm_that_is_just_starting(mags: Installation) -> None:
    host = await mags.host()
    host.slow["start"] = 0.5
    try:
        request_id = await mags.submit("sleep infinity", persistent=True)
        assert (await run(mags, request_id, "echo there"))["stdout"] == "there\n"
    finally:
        host.slow.clear()


@pytest.mark.parametrize(
    "body",
    [{}, {"command": ""}, {"command": []}, {"command": [""]}, {"command": 5}, {"command": "x", "timeout": 0},
     {"command": "x", "timeout": "5"}, {"command": "x", "environment": {"=": "x"}}, {"command": "a\u0000"}],
    ids=str,
)  # fmt: skip
async def test_a_command_that_can_not_be_is_refused(mags: Installation, body: dict[str, Any]) -> None:
    answer = await mags.api.post("/mags-jobs/whatever/exec", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


async def test_a_socket_carries_output_and_the_exit(mags: Installation) -> None:
    request_id = await sandbox(mags, "ws-1")
    async with shell(mags, "ws-1", command="echo out; echo err >&2; exit 6") as socket:
        output, control = await conversation(socket)
    assert output == {1: b"out\n", 2: b"err\n"}
    assert control == [{"type": "started", "request_id": request_id}, {"type": "exit", "exit_code": 6}]
    assert socket.close_code == 1000


async def test_a_socket_carries_stdin_until_its_end(mags: Installation) -> None:
    await sandbox(mags, "ws-2")
    async with shell(mags, "ws-2", command=["wc", "-c"]) as socket:
        for _ in range(40):
            await socket.send(b"\0" + b"x" * 100_000)
        await socket.send(json.dumps({"type": "eof"}))
        output, control = await conversation(socket)
    assert output[1].strip() == b"4000000" and control[-1] == {"type": "exit", "exit_code": 0}


async def test_a_socket_carries_signals(mags: Installation) -> None:
    await sandbox(mags, "ws-3")
    command = "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    async with shell(mags, "ws-3", command=command) as socket:
        while await socket.recv() != b"\1ready\n":
            pass
        await socket.send(json.dumps({"type": "signal", "signal": "USR1"}))
        output, control = await conversation(socket)
    assert output[1] == b"caught\n" and control == [{"type": "exit", "exit_code": 5}]


async def test_a_socket_has_a_terminal_that_changes_its_size(mags: Installation) -> None:
    await sandbox(mags, "ws-4")
    async with shell(mags, "ws-4", command="stty size; read x; stty size", pty={"rows": 10, "cols": 20}) as socket:
        seen = b""
        while b"10 20" not in seen:
            message = await socket.recv()
            seen += message[1:] if isinstance(message, bytes) else b""
        await socket.send(json.dumps({"type": "resize", "rows": 30, "cols": 40}))
        await socket.send(b"\0go\n")
        output, _ = await conversation(socket)
    assert b"30 40" in output[1]


async def test_a_socket_without_a_good_token_or_job_is_an_http_refusal(mags: Installation) -> None:
    await sandbox(mags, "ws-5")
    url = f"{mags.url.replace('http', 'ws')}/api/v1/mags-jobs"
    for path, headers, status in (
        ("ws-5", {}, 401),
        ("ws-5", {"Authorization": "Bearer nope"}, 401),
        ("nothing", {"Authorization": f"Bearer {TOKEN}"}, 404),
    ):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(f"{url}/{path}/exec", additional_headers=headers, proxy=None):
                pass
        assert refused.value.response.status_code == status
        assert set(json.loads(refused.value.response.body or b"{}")) == {"error", "code", "details"}


async def test_a_browser_gives_its_token_as_a_subprotocol(mags: Installation) -> None:
    await sandbox(mags, "ws-6")
    url = f"{mags.url.replace('http', 'ws')}/api/v1/mags-jobs/ws-6/exec"
    protocols = [websockets.Subprotocol("mags.exec.v1"), websockets.Subprotocol(f"bearer.{TOKEN}")]
    async with websockets.connect(url, subprotocols=protocols, proxy=None) as socket:
        assert socket.subprotocol == "mags.exec.v1"
        await socket.send(json.dumps({"type": "start", "command": "echo hi"}))
        output, _ = await conversation(socket)
    assert output[1] == b"hi\n"


@pytest.mark.parametrize(
    "first",
    ["{", "[]", '{"type": "stop"}', '{"type": "start", "command": 5}', '{"type": "start", "pty": {"rows": 0}}', b"\0x"],
    ids=str,
)
async def test_a_wrong_start_is_told_and_the_socket_closed(mags: Installation, first: str | bytes) -> None:
    await sandbox(mags, "ws-7")
    url = f"{mags.url.replace('http', 'ws')}/api/v1/mags-jobs/ws-7/exec"
    async with websockets.connect(url, additional_headers={"Authorization": f"Bearer {TOKEN}"}, proxy=None) as socket:
        await socket.send(first)
        _, control = await conversation(socket)
    assert control[-1]["type"] == "error" and control[-1]["status"] in (400, 422)
    assert socket.close_code == 1008


async def test_a_wrong_message_later_ends_the_session(mags: Installation) -> None:
    await sandbox(mags, "ws-8")
    for wrong in ('{"type": "resize", "rows": -1, "cols": 3}', '{"type": "signal", "signal": "WHAT"}', b"\1x"):
        async with shell(mags, "ws-8", command="sleep 60") as socket:
            await socket.send(wrong)
            _, control = await conversation(socket)
        assert control[-1]["type"] == "error"


async def test_a_process_ends_with_its_client(mags: Installation) -> None:
    host = await mags.host()
    await sandbox(mags, "ws-9")
    before = len(host.sessions)
    async with shell(mags, "ws-9", command="sleep 300") as socket:
        await socket.recv()
        assert len(host.sessions) == before + 1
    async with asyncio.timeout(60):
        while len(host.sessions) > before:
            await asyncio.sleep(0.01)
