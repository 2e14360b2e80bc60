# Made from async_process.py by `./dev fmt`; edit that.
"""A command that runs in a VM while we talk to it: exec over a WebSocket.

    with m.exec_stream("dev", "cat") as process:
        process.write(b"hello")
        process.close_stdin()
        for stream, data in process:
            ...
        print(process.exit_code)

Writing and reading may go on at once. Leaving the `with` block hangs up on a process that still runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from mags.sdk.exec_protocol import MESSAGE_LIMIT, STDIN_CHUNK, Receiver, broken, headers, refusal, websocket_url
from mags.sdk.frames import Chunk
from mags.sdk.settings import Settings, is_local
from mags.sdk.transports import AGENT


class Process:
    """One command; begins when its `with` block is entered. Iterating gives `(stream, data)`: 1 stdout,
    2 stderr."""

    def __init__(self, settings: Settings, name_or_id: str, start: str) -> None:
        self._settings, self._name, self._start = settings, name_or_id, start
        self._receiver, self._stack = Receiver(), ExitStack()
        self._opened: ClientConnection | None = None

    def __enter__(self) -> Process:
        try:
            self._opened = self._stack.enter_context(
                connect(
                    websocket_url(self._settings, self._name),
                    additional_headers=headers(self._settings),
                    user_agent_header=AGENT,
                    compression=None,
                    proxy=None if is_local(self._settings.api_url) else True,
                    max_size=MESSAGE_LIMIT,
                    open_timeout=60,
                    close_timeout=5,
                )
            )
        except (OSError, InvalidHandshake, ConnectionClosed) as error:
            raise refusal(self._settings, error) from error
        try:
            self._send(self._start)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        """To its stdin. Waits while the process does not read; does nothing when it has ended."""
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

    @property
    def _connection(self) -> ClientConnection:
        if self._opened is None:
            raise RuntimeError("The process begins with its `with` block.")
        return self._opened

    def _send(self, message: str | bytes) -> None:
        try:
            self._connection.send(message)
        except ConnectionClosed:
            pass  # the reader learns why
