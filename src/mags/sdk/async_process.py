"""A command that runs in a VM while we talk to it: exec over a WebSocket.

    async with m.exec_stream("dev", "cat") as process:
        await process.write(b"hello")
        await process.close_stdin()
        async for stream, data in process:
            ...
        print(process.exit_code)

Writing and reading may go on at once. Leaving the `async with` block hangs up on a process that still runs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from mags.sdk.exec_protocol import MESSAGE_LIMIT, STDIN_CHUNK, Receiver, broken, headers, refusal, websocket_url
from mags.sdk.frames import Chunk
from mags.sdk.settings import Settings, is_local
from mags.sdk.transports import AGENT


class AsyncProcess:
    """One command; begins when its `async with` block is entered. Iterating gives `(stream, data)`: 1 stdout,
    2 stderr."""

    def __init__(self, settings: Settings, name_or_id: str, start: str) -> None:
        self._settings, self._name, self._start = settings, name_or_id, start
        self._receiver, self._stack = Receiver(), AsyncExitStack()
        self._opened: ClientConnection | None = None

    async def __aenter__(self) -> AsyncProcess:
        try:
            self._opened = await self._stack.enter_async_context(
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
            await self._send(self._start)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def exit_code(self) -> int | None:
        """The command's status (128 + N after a signal N, 124 after its time-out); None while it runs."""
        return self._receiver.exit_code

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        while self._receiver.exit_code is None:
            try:
                chunk = self._receiver.take(await self._connection.recv())
            except ConnectionClosed as error:
                raise broken() from error
            if chunk is not None:
                yield chunk

    async def wait(self) -> int:
        """The exit status; output that comes until then is dropped."""
        async for _ in self:
            pass
        assert self._receiver.exit_code is not None
        return self._receiver.exit_code

    async def write(self, data: bytes) -> None:
        """To its stdin. Waits while the process does not read; does nothing when it has ended."""
        for start in range(0, len(data), STDIN_CHUNK):
            await self._send(b"\0" + data[start : start + STDIN_CHUNK])

    async def close_stdin(self) -> None:
        await self._send('{"type": "eof"}')

    async def resize(self, rows: int, cols: int) -> None:
        await self._send(json.dumps({"type": "resize", "rows": rows, "cols": cols}))

    async def signal(self, number: int | str) -> None:
        """A number or a name ("INT"), to its process group."""
        await self._send(json.dumps({"type": "signal", "signal": number}))

    async def close(self) -> None:
        """Hang up: a process that still runs is ended."""
        await self._stack.aclose()

    @property
    def _connection(self) -> ClientConnection:
        if self._opened is None:
            raise RuntimeError("The process begins with its `async with` block.")
        return self._opened

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed:
            pass  # the reader learns why
