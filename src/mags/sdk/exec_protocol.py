"""Exec over a WebSocket (docs/exec-websocket.md), without I/O: what is sent, and what the server's messages mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus

from mags.sdk.answers import lost, refused
from mags.sdk.calls.jobs import job_path
from mags.sdk.errors import MagsError, NotReachable, TransferFailed, from_answer
from mags.sdk.frames import Chunk
from mags.sdk.settings import Settings
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
        return refused(error.response.status_code, bytes(error.response.body or b""), None)
    if isinstance(error, ConnectionRefusedError):
        return lost(settings, ConnectionBroke(str(error), sent=False, refused=True))
    return lost(settings, ConnectionBroke(str(error) or type(error).__name__, sent=isinstance(error, ConnectionClosed)))


def broken() -> NotReachable:
    return NotReachable("The connection was lost while the command ran; the command was ended. Try again.")
