"""A client of QEMU's monitor protocol, QMP (QEMU, docs/interop/qmp-spec.rst): JSON objects, one a line.

    qmp = await Qmp.connect(path)           # greeting read, capabilities negotiated
    await qmp.execute("stop")
    status = await qmp.ask("query-status", Status)
    async with qmp.events("JOB_STATUS_CHANGE") as events: ...

Commands may be sent while others wait; QEMU answers in order. Lines are bounded: QEMU is not trusted more than the
guest that it runs.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mags.host.vmm.driver import VmmError
from mags.host.vmm.stall import Stall

T = TypeVar("T")

LINE_LIMIT = 4 << 20
"""Bytes; `query-named-block-nodes` of a busy VM is some 100 KB."""
EVENT_LIMIT = 8 << 10
"""Bytes of an event; those that we listen for have some 300."""
EVENTS_LIMIT = 128
"""Events kept for a reader that does not read; the oldest are dropped."""
TIMEOUT = 30.0
"""Seconds for a command unless the caller knows better. Answers take about 1 ms on an idle host."""


class QmpError(VmmError):
    """QEMU refused a command. `kind` is its error class, such as "GenericError"."""

    def __init__(self, command: str, kind: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description}")
        self.command, self.kind, self.description = command, kind, description


class QmpClosed(VmmError):
    """The monitor's connection ended: QEMU is gone, or broke the protocol."""


class QmpTimeout(VmmError):
    """QEMU did not answer in time."""


class Events:
    """Events of some names, from the moment it was made: an iterator without an end."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._kept: deque[dict[str, Any]] = deque(maxlen=EVENTS_LIMIT)
        self._arrived = asyncio.Event()
        self._closed: QmpClosed | None = None

    def offer(self, event: dict[str, Any]) -> None:
        if event["event"] in self._names:
            self._kept.append(event)
            self._arrived.set()

    def close(self, reason: QmpClosed) -> None:
        self._closed = reason
        self._arrived.set()

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self

    async def __anext__(self) -> dict[str, Any]:
        """The next event: `{"event": NAME, "data": {...}}`. QmpClosed when QEMU has gone."""
        while not self._kept:
            if self._closed is not None:
                raise self._closed
            self._arrived.clear()
            await self._arrived.wait()
        return self._kept.popleft()


class Qmp:
    """One connection. `connect` makes it; `aclose` ends it; `closed` resolves with the reason when it ended."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._listeners: set[Events] = set()
        self._writing = asyncio.Lock()
        self.silence = Stall()
        """Whether QEMU owes an answer that is overdue: it waits for a file, with its VM, or has too little of a CPU."""
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(), name="qmp")
        # Not before the loop has ceased to watch it: its number may be another file's a moment later.
        self._reader.add_done_callback(lambda _: sock.close())

    @classmethod
    async def connect(cls, path: Path, *, timeout: float = TIMEOUT) -> Qmp:
        """Connect to a listening monitor and wait until QEMU serves it. QmpClosed or QmpTimeout."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(timeout):
                await loop.sock_connect(sock, str(path))
        except OSError as error:
            sock.close()
            raise QmpClosed(f"The monitor of QEMU cannot be reached: {error}") from error
        except BaseException:
            sock.close()
            raise
        qmp = cls(sock)
        try:
            # Sent before the greeting is read: QEMU handles its input in order, and it saves a turn.
            await qmp.execute("qmp_capabilities", timeout=timeout)
        except BaseException:
            await qmp.aclose()
            raise
        return qmp

    async def execute(
        self, command: str, *, timeout: float = TIMEOUT, fds: Sequence[int] = (), **arguments: object
    ) -> Any:
        """Run one command and return its answer. Argument names take `_` for `-`.

        fds: descriptors that travel with the command (`add-fd`, `getfd`); the caller closes its own ones.
        QmpError if QEMU refuses, QmpClosed if it ends, QmpTimeout after `timeout` seconds.
        """
        if self.closed.done():
            raise QmpClosed(self.closed.result())
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        words = {key.replace("_", "-"): value for key, value in arguments.items()}
        line = json.dumps({"execute": command, "arguments": words, "id": number}).encode() + b"\n"
        try:
            async with asyncio.timeout(timeout):
                if fds:
                    # QEMU keeps only the descriptors of its last read: nothing may follow before it has taken them.
                    async with self._writing:
                        await self._send(line, fds)
                        reply = await answer
                else:
                    async with self._writing:
                        await self._send(line, ())
                    reply = await answer
        except TimeoutError as error:
            self.silence.begin(f"QEMU has not answered {command} for {timeout:g} s")
            raise QmpTimeout(f"QEMU did not answer {command} within {timeout:g} s.") from error
        finally:
            self._waiting.pop(number, None)
        if "error" in reply:
            problem = reply["error"]
            raise QmpError(command, str(problem.get("class")), str(problem.get("desc")))
        return reply.get("return")

    async def ask(
        self, command: str, shape: type[T], *, timeout: float = TIMEOUT, fds: Sequence[int] = (), **arguments: object
    ) -> T:
        """`execute`, for an answer that is looked into: of that shape (see `answers`), or the connection ends."""
        answer = await self.execute(command, timeout=timeout, fds=fds, **arguments)
        try:
            return msgspec.convert(answer, shape)
        except msgspec.ValidationError as error:
            self._end(f"QEMU's monitor broke the protocol: its answer to {command} is none ({error})")
            raise QmpClosed(self.closed.result()) from error

    @contextmanager
    def events(self, *names: str) -> Iterator[Events]:
        """Listen for events of these names. Begin before the command that causes them."""
        listener = Events(frozenset(names))
        if self.closed.done():
            listener.close(QmpClosed(self.closed.result()))
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    @staticmethod
    async def first(events: Events, *, timeout: float) -> dict[str, Any]:
        """The next of these events; QmpTimeout after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return await anext(events)
        except TimeoutError as error:
            raise QmpTimeout(f"QEMU did not report an event within {timeout:g} s.") from error

    async def aclose(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._end("The monitor was closed.")

    async def _send(self, line: bytes, fds: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        try:
            if fds:
                sent = await self._send_with(line, fds)
                line = line[sent:]
            await loop.sock_sendall(self._socket, line)
        except OSError as error:
            self._end(f"QEMU's monitor does not take commands: {error}")
            raise QmpClosed(self.closed.result()) from error

    async def _send_with(self, line: bytes, fds: Sequence[int]) -> int:
        while True:
            try:
                return socket.send_fds(self._socket, [line], list(fds))
            except BlockingIOError:
                await asyncio.sleep(0.001)  # the buffer of a unix socket is far larger than our commands

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        pending = bytearray()
        reason = "QEMU ended."
        try:
            while chunk := await loop.sock_recv(self._socket, 1 << 16):
                pending += chunk
                while (end := pending.find(b"\n")) >= 0:
                    self._take(bytes(pending[:end]))
                    del pending[: end + 1]
                if len(pending) > LINE_LIMIT:
                    raise ValueError("a line without an end")
        except (ValueError, RecursionError) as error:
            reason = f"QEMU's monitor broke the protocol: {error}"
        except OSError as error:
            reason = f"QEMU ended: {error}"
        self._end(reason)

    def _take(self, line: bytes) -> None:
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("a line that is no object")
        if "event" in message:
            if not isinstance(message["event"], str) or not isinstance(message.setdefault("data", {}), dict):
                raise ValueError("an event that is none")
            if len(line) > EVENT_LIMIT:
                raise ValueError("an event that is too long")
            for listener in self._listeners:
                listener.offer(message)
        elif "return" in message or "error" in message:
            self.silence.end()
            number = message.get("id")
            if not isinstance(number, int) or not isinstance(message.get("error", {}), dict):
                raise ValueError("an answer that is none")
            answer = self._waiting.get(number)
            if answer is not None and not answer.done():
                answer.set_result(message)

    def _end(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
            self._reader.cancel()
        closed = QmpClosed(self.closed.result())
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(closed)
                answer.exception()  # who could not even send waits for none
        for listener in self._listeners:
            listener.close(closed)
