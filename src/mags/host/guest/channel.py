"""The host's end of the channel to one guest agent.

    connect --RESET--> agent --HELLO--> open --(EOF | bad frame | GOODBYE | aclose)--> closed

A unix socket of QEMU leads to the agent's virtio port. Only one host program may use it at a time; after a crash
the next one connects again, learns from HELLO which processes live, and attaches to each where it had stopped.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mags.host.guest import files
from mags.host.guest.errors import ChannelClosed, GuestError
from mags.host.guest.files import FileReader
from mags.host.guest.process import Process
from mags.host.guest.requests import Requests
from mags.host.guest.wire import Wire
from mags.protocol.guest import (
    Configure,
    Entry,
    Exec,
    Frame,
    FrameType,
    Hello,
    Offsets,
    Part,
    ProtocolError,
    Stats,
)
from mags.protocol.guest.answers import (
    decode_configured,
    decode_error,
    decode_exit,
    decode_output,
    decode_pong,
)
from mags.protocol.guest.frames import encode_frame, encode_message, encode_reset
from mags.protocol.guest.wishes import STDIN_WINDOW

T = TypeVar("T")

# A guest that does not read cannot make us buffer more than this.
MAX_UNSENT = 64 * 1024 * 1024
# Seconds that we wait for HELLO: on the first connection, the second, ..., and every later one. What an earlier host
# left behind may keep the guest from answering: half a frame, which a thorough RESET ends; or output that QEMU holds
# back for it. If it went while the VM stood still, QEMU's port does not hear of that, and the output goes on only when
# the end of a later connection is told. Hence a new one each time.
PATIENCE = (0.5, 1.5, 4.0, 8.0, 16.0)


@dataclass(frozen=True, slots=True)
class Configured:
    """The parts of the CONFIGURE that the guest has confirmed: all that were asked for."""

    confirmed: frozenset[Part]


class Channel:
    """Made by `connect`. All methods raise ChannelClosed once the guest is gone, GuestError when it refuses."""

    hello: Hello

    def __init__(self) -> None:
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.processes: dict[int, Process] = {}
        self._wire = Wire(self._dispatch, self._end)
        self._greeting: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        self._requests = Requests()
        self._last_process = 0

    @classmethod
    async def connect(
        cls, path: Path, *, timeout: float = 30.0, resume: Mapping[int, Offsets] | None = None
    ) -> Channel:
        """Open the channel and greet the agent; waits up to `timeout` seconds for a guest that still boots.

        With `resume`, attaches to these processes where they are still held (see `processes`). Raises ChannelClosed if
        the VM ends meanwhile, TimeoutError if no agent answers.
        """
        deadline = time.monotonic() + timeout
        for attempt in itertools.count():
            patience = PATIENCE[min(attempt, len(PATIENCE) - 1)]
            channel = await cls._open(path, deadline)
            try:
                left = deadline - time.monotonic()
                if await channel._greet(min(patience, left), thorough=attempt > 0):
                    break
                if left <= patience:
                    raise TimeoutError("the guest agent does not answer")
            except BaseException:
                await channel.aclose()
                raise
            await channel.aclose()
        channel._last_process = channel.hello.last_process_id
        held = {process.id for process in channel.hello.processes}
        for process_id, offsets in (resume or {}).items():
            if process_id in held:
                channel.attach(process_id, offsets)
        return channel

    @classmethod
    async def _open(cls, path: Path, deadline: float) -> Channel:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            while True:
                channel = cls()
                try:
                    await channel._wire.connect(path)
                    return channel
                except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                    await asyncio.sleep(0.005)

    async def _greet(self, wait: float, *, thorough: bool) -> bool:
        """Whether the guest has answered within `wait` seconds. Raises ChannelClosed."""
        nonce = secrets.randbits(64)
        self._wire.expect(nonce)
        self._write(encode_reset(nonce, thorough=thorough))
        done, _ = await asyncio.wait(
            (self._greeting, self.closed), timeout=max(0.0, wait), return_when=asyncio.FIRST_COMPLETED
        )
        if self._greeting.done():
            self.hello = self._greeting.result()
        elif done:
            raise ChannelClosed(self.closed.result())
        return self._greeting.done()

    # Frames in

    def _dispatch(self, frame: Frame) -> None:
        kind = frame.type
        if kind == FrameType.OUTPUT:
            if process := self._process(frame.id):
                process._take_output(decode_output(frame.payload))
        elif kind == FrameType.EXIT:
            if process := self._process(frame.id):
                process._take_exit(decode_exit(frame.payload))
        elif kind == FrameType.CREDIT:
            if len(frame.payload) != 8:
                raise ProtocolError("malformed CREDIT")
            if process := self._process(frame.id):
                process._take_credit(int.from_bytes(frame.payload, "little"))
        elif kind in (FrameType.REPLY, FrameType.ERROR, FrameType.CONFIGURED):
            self._requests.take(frame)
        elif kind == FrameType.HELLO:
            if self._greeting.done():
                raise ProtocolError("a second HELLO")
            self._greeting.set_result(Hello.decode(frame.payload))
        elif kind == FrameType.GOODBYE:
            self._end("the agent said goodbye: " + frame.payload[:200].decode("utf-8", "replace"))
        else:
            raise ProtocolError(f"unknown frame type {kind}")

    def _process(self, id: int) -> Process | None:
        """The process; None if it was released and the agent could not know yet."""
        process = self.processes.get(id)
        if process is None and not 0 < id <= self._last_process:
            raise ProtocolError(f"a frame of process {id}, which never was")
        return process

    # Frames out

    def _send(self, kind: int, id: int, payload: bytes = b"", flags: int = 0) -> None:
        self._write(encode_frame(kind, id, payload, flags))

    def _write(self, data: bytes) -> None:
        if self.closed.done():
            raise ChannelClosed(self.closed.result())
        if self._wire.unsent > MAX_UNSENT:
            self._end("the guest does not read its channel")
            raise ChannelClosed(self.closed.result())
        self._wire.write(data)

    async def _drain(self) -> None:
        await self._wire.drain()

    def _end(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
            self._requests.fail(reason)
            for process in self.processes.values():
                process._lose(reason)
            self._wire.close()

    def _request(self) -> tuple[int, asyncio.Future[Frame]]:
        if self.closed.done():
            raise ChannelClosed(self.closed.result())
        return self._requests.begin()

    async def _answer(self, future: asyncio.Future[Frame], expected: FrameType, timeout: float) -> bytes:
        async with asyncio.timeout(timeout):
            frame = await future
        if frame.type == FrameType.ERROR:
            number, message = self._decoded(decode_error, frame.payload)
            raise GuestError(number, message)
        if frame.type != expected:
            raise self._broken("an answer of the wrong type")
        return frame.payload

    def _decoded(self, decode: Callable[[bytes], T], data: bytes) -> T:
        """What a decoder makes of the guest's bytes; the end of the channel if it makes nothing of them."""
        try:
            return decode(data)
        except ProtocolError as error:
            raise self._broken(str(error)) from error

    def _broken(self, how: str) -> ChannelClosed:
        self._end(f"the guest broke the protocol: {how}")
        return ChannelClosed(self.closed.result())

    async def _ask(self, kind: FrameType, payload: bytes = b"", timeout: float = 30.0) -> bytes:
        id, future = self._request()
        try:
            self._send(kind, id, payload)
            return await self._answer(future, FrameType.REPLY, timeout)
        finally:
            self._requests.forget(id)

    # Wishes

    async def configure(self, wish: Configure, *, timeout: float = 30.0) -> Configured:
        """Apply the wished parts; returns only if the guest confirmed every one of them."""
        id, future = self._request()
        try:
            self._write(encode_message(FrameType.CONFIGURE, id, wish.encode()))
            return await self._confirm(wish, future, timeout)
        finally:
            self._requests.forget(id)

    async def _confirm(self, wish: Configure, future: asyncio.Future[Frame], timeout: float) -> Configured:
        payload = await self._answer(future, FrameType.CONFIGURED, timeout)
        results = self._decoded(decode_configured, payload)
        for result in results:
            if result.errno:
                raise GuestError(result.errno, f"{result.part.name.lower()}: {result.message}")
        confirmed = frozenset(result.part for result in results)
        if confirmed != wish.parts():
            raise self._broken("it did not confirm what it was told")
        return Configured(confirmed)

    def _start(self, wish: Exec) -> tuple[Process, bytes]:
        process = Process(self, self._last_process + 1, wish.window)
        data = encode_message(FrameType.EXEC, process.id, wish.encode())
        process._start_stdin(0, STDIN_WINDOW)
        self._last_process = process.id
        self.processes[process.id] = process
        return process, data

    async def exec(self, wish: Exec) -> Process:
        """Start a process; returns when the frame is written. If it cannot start, its exit says why.

        ValueError if the wish is larger than a message may be (2 MiB).
        """
        process, data = self._start(wish)
        try:
            self._write(data)
        except ChannelClosed:
            del self.processes[process.id]
            raise
        return process

    async def configure_and_exec(
        self, configure: Configure, wish: Exec, *, timeout: float = 30.0
    ) -> tuple[Configured, Process]:
        """Both in one round trip. If the configuration fails, the agent does not start the process."""
        id, future = self._request()
        try:
            head = encode_message(FrameType.CONFIGURE, id, configure.encode())
            process, tail = self._start(wish)
            try:
                self._write(head + tail)
                return await self._confirm(configure, future, timeout), process
            except BaseException:
                self._release(process.id)
                raise
        finally:
            self._requests.forget(id)

    def attach(self, process_id: int, offsets: Offsets) -> Process:
        """Go on with a process of an earlier host program, from these offsets on.

        Raises KeyError if HELLO did not list it, ValueError if the agent no longer has these offsets.
        """
        info = next((p for p in self.hello.processes if p.id == process_id), None)
        if info is None:
            raise KeyError(process_id)
        wanted = (offsets.stdout, offsets.stderr, offsets.result)
        kept = info.acknowledged, info.written
        for value, low, high in zip(wanted, *((o.stdout, o.stderr, o.result) for o in kept), strict=True):
            if not low <= value <= high:
                raise ValueError(f"process {process_id} has output {low} to {high}, not {value}")
        process = Process(self, process_id, info.window, offsets)
        process._start_stdin(info.stdin_received, info.stdin_limit)
        self.processes[process_id] = process
        self._send(FrameType.ATTACH, process_id, b"".join(v.to_bytes(8, "little") for v in wanted))
        return process

    def _release(self, process_id: int) -> None:
        if self.processes.pop(process_id, None) is not None and not self.closed.done():
            self._send(FrameType.RELEASE, process_id)

    async def ping(self) -> float:
        """The guest's wall clock, seconds since the epoch."""
        return self._decoded(decode_pong, await self._ask(FrameType.PING))[0] / 1e9

    async def stats(self) -> Stats:
        return self._decoded(Stats.decode, await self._ask(FrameType.STATS))

    async def flush(self, *, timeout: float = 120.0) -> None:
        """Write all dirty data to the work disk, without stopping anybody."""
        await self._ask(FrameType.FLUSH, timeout=timeout)

    async def freeze(self, *, limit_s: float, timeout: float = 60.0) -> None:
        """Stop all writes to the work disk. The agent thaws by itself after `limit_s` seconds."""
        await self._ask(FrameType.FREEZE, round(limit_s * 1000).to_bytes(4, "little"), timeout)

    async def thaw(self) -> None:
        await self._ask(FrameType.THAW)

    async def poweroff(self) -> None:
        """Ask the guest to end: processes are killed, disks flushed. `closed` resolves when the VM is gone."""
        self._send(FrameType.POWEROFF, 0)

    async def read_file(self, path: str, *, offset: int = 0, limit: int | None = None) -> FileReader:
        return await files.open_reader(self, path, offset, limit)

    async def write_file(
        self,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        mode: int | None = None,
        parents: bool = True,
        user: str | None = None,
    ) -> int:
        return await files.write(self, path, chunks, mode, parents, user)

    async def list_directory(self, path: str) -> list[Entry]:
        return await files.listing(self, path)

    async def stat(self, path: str) -> Entry:
        return await files.stat(self, path)

    async def remove(self, path: str, recursive: bool = False) -> None:
        await files.remove(self, path, recursive)

    async def make_directory(self, path: str, mode: int = 0o755, *, parents: bool = False) -> None:
        await files.make_directory(self, path, mode, parents)

    async def rename(self, source: str, target: str) -> None:
        await files.rename(self, source, target)

    async def aclose(self) -> None:
        """Leave the guest alone: its processes go on, unacknowledged output is kept for the next host."""
        self._end("closed by the host")
