"""A command that runs in a VM while we talk to it: exec over a WebSocket (docs/exec-websocket.md).

    with m.exec_stream("dev", "cat") as process:
        process.write(b"hello")
        process.close_stdin()
        for stream, data in process:
            ...
        print(process.exit_code)

Writing and reading may happen in two threads. Leaving the `with` block hangs up on a process that still runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from mags.sdk.calls.jobs import job_path
from mags.sdk.errors import MagsError, NotReachable, TransferFailed, from_answer
from mags.sdk.frames import Chunk
from mags.sdk.sender import AGENT, lost
from mags.sdk.settings import Settings, is_local
from mags.sdk.transports import ConnectionBroke

STDIN_CHUNK = 1 << 18
"""Bytes of one message to the server (it takes 1 MiB)."""
MESSAGE_LIMIT = 16 << 20


def websocket_url(settings: Settings, name_or_id: str) -> str:
    return "ws" + settings.api_url.removeprefix("http") + "/api/v1" + job_path(name_or_id, "/exec")


def headers(settings: Settings) -> dict[str, str]:
    return {"Authorization": f"Bearer {settings.api_token}"}


def start_message(
    command: str | Sequence[str] | None,
    *,
    pty: tuple[int, int] | None = None,
    term: str = "xterm-256color",
    environment: Mapping[str, str] | None = None,
    workdir: str | None = None,
    user: str | None = None,
    timeout: float | None = None,
) -> str:
    """The first message. `pty` is (rows, columns); `timeout` in seconds."""
    wish: dict[str, Any] = {"type": "start"}
    if command is not None:
        wish["command"] = command if isinstance(command, str) else list(command)
    if pty is not None:
        wish["pty"] = {"rows": pty[0], "cols": pty[1], "term": term}
    given = {"environment": dict(environment or {}) or None, "workdir": workdir, "user": user, "timeout": timeout}
    return json.dumps(wish | {name: value for name, value in given.items() if value is not None})


class Receiver:
    """What the server's messages mean; no I/O. `exit_code` is known once a message was the last one."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.request_id: str | None = None

    def take(self, message: str | bytes) -> Chunk | None:
        """Output, or None. Raises the error that the server reports."""
        if isinstance(message, bytes):
            if not message or message[0] not in (1, 2):
                raise TransferFailed("The server sent something else than output. Is it a Mags server?")
            return Chunk(message[0], message[1:])
        try:
            found = json.loads(message)
            kind = found["type"]
        except (ValueError, TypeError, KeyError) as error:
            raise TransferFailed("The server sent an unreadable message. Is it a Mags server?") from error
        if kind == "started":
            self.request_id = found.get("request_id")
        elif kind == "exit":
            code = found.get("exit_code")
            if not isinstance(code, int):
                raise TransferFailed("The VM ended before it could tell how the command ended.")
            self.exit_code = code
        elif kind == "error":
            raise from_answer(int(found.get("status") or 500), found)
        return None


def refusal(settings: Settings, error: Exception) -> MagsError:
    """Our error for one of the WebSocket library's, raised while connecting."""
    if isinstance(error, InvalidStatus):
        answer = error.response
        body = bytes(answer.body or b"").decode(errors="replace")
        try:
            return from_answer(answer.status_code, json.loads(body))
        except ValueError:
            return from_answer(answer.status_code, body)
    if isinstance(error, ConnectionRefusedError):
        return lost(settings, ConnectionBroke(str(error), sent=False, refused=True))
    return lost(settings, ConnectionBroke(str(error) or type(error).__name__, sent=isinstance(error, ConnectionClosed)))


def broken() -> NotReachable:
    return NotReachable("The connection was lost while the command ran; the command was ended. Try again.")


class Process:
    """One command that runs; see the module. Iterating gives `(stream, data)`: 1 stdout, 2 stderr."""

    def __init__(self, settings: Settings, name_or_id: str, start: str) -> None:
        self._receiver, self._stack = Receiver(), ExitStack()
        try:
            opening = connect(
                websocket_url(settings, name_or_id),
                additional_headers=headers(settings),
                user_agent_header=AGENT,
                compression=None,
                proxy=None if is_local(settings.api_url) else True,
                max_size=MESSAGE_LIMIT,
                open_timeout=60,
                close_timeout=5,
            )
            self._connection: ClientConnection = self._stack.enter_context(opening)
        except (OSError, InvalidHandshake, ConnectionClosed) as error:
            raise refusal(settings, error) from error
        self._send(start)

    @property
    def exit_code(self) -> int | None:
        """The command's status (128 + N after a signal N, 124 after its time-out); None while it runs."""
        return self._receiver.exit_code

    def __iter__(self) -> Iterator[Chunk]:
        while self._receiver.exit_code is None:
            try:
                chunk = self._receiver.take(self._connection.recv())
            except ConnectionClosed as error:
                raise broken() from error
            if chunk is not None:
                yield chunk

    def wait(self) -> int:
        """The exit status; output that comes until then is dropped."""
        for _ in self:
            pass
        assert self._receiver.exit_code is not None
        return self._receiver.exit_code

    def write(self, data: bytes) -> None:
        """To its stdin. Blocks while the process does not read; does nothing when it has ended."""
        for start in range(0, len(data), STDIN_CHUNK):
            self._send(b"\0" + data[start : start + STDIN_CHUNK])

    def close_stdin(self) -> None:
        self._send('{"type": "eof"}')

    def resize(self, rows: int, cols: int) -> None:
        self._send(json.dumps({"type": "resize", "rows": rows, "cols": cols}))

    def signal(self, number: int | str) -> None:
        """A number or a name ("INT"), to its process group."""
        self._send(json.dumps({"type": "signal", "signal": number}))

    def close(self) -> None:
        """Hang up: a process that still runs is ended."""
        self._stack.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, message: str | bytes) -> None:
        try:
            self._connection.send(message)
        except ConnectionClosed:
            pass  # the reader learns why
