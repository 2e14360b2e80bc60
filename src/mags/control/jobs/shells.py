"""Streaming exec over a WebSocket (docs/exec-websocket.md)."""

from __future__ import annotations

import asyncio
import json
import signal as signals
from typing import Any

from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from mags.control.http.answers import problem_answer
from mags.control.http.callers import authenticator, require
from mags.control.http.context import the_world
from mags.control.http.refusals import from_validation
from mags.control.jobs.schemas import ShellStart
from mags.control.lifecycles.reaching import reach
from mags.hostclient import Session
from mags.kit import tasks
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from mags.protocol.messages import Open, Pty

START_WITHIN = 10.0
MAX_FRAME = 1 << 20
PROTOCOL, BEARER = "mags.exec.v1", "bearer."
MAX_SIDE = 10_000


async def serve(websocket: WebSocket, reference: str) -> None:
    """The whole life of one connection."""
    world = the_world(websocket)
    try:
        caller = require(await authenticator(websocket).caller(_token(websocket)), "write")
        reached = await reach(world, caller.user_id, reference)
    except Problem as problem:
        await websocket.send_denial_response(problem_answer(problem))
        return
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
    try:
        start = await _start(websocket)
        wish = Open(
            vm_id=reached.vm.id,
            session_id=new_id(),
            kind="exec",
            command=start.command,
            environment=start.environment or {},
            workdir=start.workdir,
            user=start.user,
            pty=Pty(rows=start.pty.rows, cols=start.pty.cols, term=start.pty.term) if start.pty is not None else None,
            timeout_s=start.timeout,
        )
        async with await reached.open(wish) as session:
            await _send(websocket, {"type": "started", "request_id": reached.job.id})
            await _both_ways(websocket, session)
    except Problem as problem:
        await _fail(websocket, problem)
    except WebSocketDisconnect:
        pass


def _token(websocket: WebSocket) -> str | None:
    """From the header, or for browsers from the offered subprotocols."""
    scheme, _, token = websocket.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    for offered in websocket.scope.get("subprotocols", []):
        if str(offered).startswith(BEARER):
            return str(offered).removeprefix(BEARER)
    return None


async def _start(websocket: WebSocket) -> ShellStart:
    try:
        async with asyncio.timeout(START_WITHIN):
            message = await websocket.receive()
    except TimeoutError:
        raise Problem("bad_request", f"Send the message `start` within {START_WITHIN:g} s.") from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    body = _parse(message.get("text"))
    try:
        return ShellStart.model_validate(body)
    except ValidationError as error:
        raise from_validation(error.errors(include_url=False, include_context=False, include_input=False)) from error


def _parse(text: str | None) -> dict[str, Any]:
    try:
        body = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Problem("bad_request", "A text frame holds one JSON object.")
    return body


async def _both_ways(websocket: WebSocket, session: Session) -> None:
    """Until the process ends, or the client goes."""
    incoming = asyncio.ensure_future(_incoming(websocket, session))
    outgoing = asyncio.ensure_future(_outgoing(websocket, session))
    try:
        await asyncio.wait({incoming, outgoing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await tasks.end((incoming, outgoing))
    for task in (incoming, outgoing):
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _outgoing(websocket: WebSocket, session: Session) -> None:
    async for frame in session:
        await websocket.send_bytes(bytes([frame.stream]) + frame.data)
    code = session.end.exit_code if session.end is not None else None
    await _send(websocket, {"type": "exit", "exit_code": code})
    await websocket.close(1000)


async def _incoming(websocket: WebSocket, session: Session) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes")
        if data is not None:
            if len(data) > MAX_FRAME + 1 or data[:1] != b"\x00":
                raise Problem("bad_request", "A binary frame is a byte 0 and at most 1 MiB of stdin.")
            await session.write(memoryview(data)[1:])
            continue
        await _control(_parse(message.get("text")), session)


async def _control(body: dict[str, Any], session: Session) -> None:
    kind = body.get("type")
    if kind == "resize":
        rows, cols = body.get("rows"), body.get("cols")
        if not all(type(side) is int and 1 <= side <= MAX_SIDE for side in (rows, cols)):
            raise Problem("invalid", f"resize: rows and cols are numbers from 1 to {MAX_SIDE}.")
        await session.resize(int(rows or 0), int(cols or 0))
    elif kind == "signal":
        await session.signal(_signal(body.get("signal")))
    elif kind == "eof":
        await session.eof()
    else:
        raise Problem("bad_request", "The type of a message is resize, signal or eof.")


def _signal(value: object) -> int:
    if type(value) is int and 1 <= value <= 64:
        return value
    if isinstance(value, str):
        name = value.upper()
        found = signals.Signals.__members__.get(name if name.startswith("SIG") else f"SIG{name}")
        if found is not None:
            return int(found)
    raise Problem("invalid", "signal: give a number from 1 to 64, or a name such as INT.")


async def _send(websocket: WebSocket, body: dict[str, Any]) -> None:
    await websocket.send_text(json.dumps(body))


async def _fail(websocket: WebSocket, problem: Problem) -> None:
    if websocket.application_state is not WebSocketState.CONNECTED:
        return
    try:
        await _send(websocket, {"type": "error", **problem.body(), "status": problem.status})
        await websocket.close(1008 if problem.status < 500 else 1011)
    except (WebSocketDisconnect, RuntimeError):
        pass
