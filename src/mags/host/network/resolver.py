"""The resolver that guests find at their gateway: it passes questions on to those of the host.

Guests may not reach private addresses, and the host's resolvers often have one (127.0.0.53 as a rule), so a program
must stand between. It keeps no answers and changes no message; whoever asks is known by the address of its namespace.
Nothing a guest sends takes memory for more than QUERY_SECONDS, and no guest more than its share.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

ATTEMPT_SECONDS = 2.0
"""How long one of the host's resolvers has to answer until the next is asked."""

QUERY_SECONDS = 6.0
"""How long a guest waits at most; then the answer is "server failure"."""

CONNECTION_SECONDS = 30.0
"""How long a connection (DNS over TCP) may last."""

QUERIES_PER_VM = 64
QUERIES = 1024
MESSAGE_LIMIT = 4096
"""Bytes of the largest question that is passed on over UDP."""

HEADER = 12
SERVER_FAILURE = 2


def failure(query: bytes) -> bytes:
    """The answer "server failure" to a question (RFC 1035, 4.1.1): its header, marked as a response, nothing else."""
    flags = bytes((query[2] | 0x80, (query[3] & 0x70) | 0x80 | SERVER_FAILURE))
    return query[:2] + flags + bytes(8)


class HostResolvers:
    """The resolvers of this host, as its resolv.conf says now, or those that were set."""

    def __init__(self, fixed: Sequence[str] = (), file: Path = Path("/etc/resolv.conf")) -> None:
        self._fixed, self._file = tuple(fixed), file
        self._read: tuple[str, ...] = ()
        self._stamp: tuple[int, int] | None = None

    def __call__(self) -> tuple[str, ...]:
        if self._fixed:
            return self._fixed
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._read, self._stamp = _nameservers(self._file.read_text(errors="replace")), stamp
        except OSError:
            pass  # being replaced: what it said last goes on
        return self._read


def _nameservers(text: str) -> tuple[str, ...]:
    lines = (line.split() for line in text.splitlines())
    return tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")[:3]


class _Attempt(asyncio.DatagramProtocol):
    """One question to one resolver."""

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _: object) -> None:
        # Late answers to other questions cannot come: the socket is new, and connected to the resolver.
        if len(data) >= HEADER and data[:2] == self._query[:2] and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.cancel()


class Resolver(asyncio.DatagramProtocol):
    """Serves all VMs of a host from one UDP and one TCP port."""

    def __init__(self, upstreams: Callable[[], Sequence[str]], is_guest: Callable[[str], bool], port: int = 53) -> None:
        self._upstreams, self._is_guest, self._port = upstreams, is_guest, port
        self._busy: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self.ports = (0, 0)

    async def open(self) -> None:
        """Listen, on ports that `ports` (UDP, TCP) then holds. The host's rules lead guests there."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("0.0.0.0", 0))
        try:
            self._server = await asyncio.start_server(self._relay, "0.0.0.0", 0)
        except BaseException:
            self._transport.close()
            raise
        self.ports = (
            self._transport.get_extra_info("sockname")[1],
            self._server.sockets[0].getsockname()[1],
        )

    async def aclose(self) -> None:
        """Stop, and drop what is under way."""
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, guest: str) -> bool:
        """Whether this guest may have one more question under way."""
        if not self._is_guest(guest) or self._busy[guest] >= QUERIES_PER_VM or self._busy.total() >= QUERIES:
            return False
        self._busy[guest] += 1
        return True

    def _end(self, guest: str) -> None:
        self._busy[guest] -= 1
        if not self._busy[guest]:
            del self._busy[guest]

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        if HEADER <= len(data) <= MESSAGE_LIMIT and self._begin(source[0]):
            task = asyncio.get_running_loop().create_task(self._answer(data, source))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, query: bytes, source: tuple[str, int]) -> None:
        answer: bytes | None = None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(QUERY_SECONDS):
                    for upstream in self._upstreams():
                        answer = await self._ask(query, upstream)
                        if answer is not None:
                            break
            if self._transport is not None:
                self._transport.sendto(answer or failure(query), source)
        finally:
            self._end(source[0])

    async def _ask(self, query: bytes, upstream: str) -> bytes | None:
        loop = asyncio.get_running_loop()
        try:
            transport, attempt = await loop.create_datagram_endpoint(
                lambda: _Attempt(query), remote_addr=(upstream, self._port)
            )
        except OSError:
            return None
        try:
            transport.sendto(query)
            async with asyncio.timeout(ATTEMPT_SECONDS):
                return await attempt.answer
        except (OSError, TimeoutError):
            return None
        finally:
            transport.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        guest = writer.get_extra_info("peername")[0]
        counted = self._begin(guest)
        try:
            if counted:
                async with asyncio.timeout(CONNECTION_SECONDS):
                    await self._relay_to_any(reader, writer)
                    # Within its time and its share: what the guest does not take would wait for it for ever.
                    writer.close()
                    await writer.wait_closed()
            writer.close()
        except (OSError, TimeoutError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            if counted:
                self._end(guest)
            self._tasks.discard(task)

    async def _relay_to_any(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for upstream in self._upstreams():
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    from_upstream, to_upstream = await asyncio.open_connection(upstream, self._port)
            except (OSError, TimeoutError):
                continue
            try:
                async with asyncio.TaskGroup() as group:
                    asking = group.create_task(_pump(reader, to_upstream))
                    await _pump(from_upstream, writer)
                    asking.cancel()
            except* OSError:
                pass
            finally:
                to_upstream.transport.abort()
            return


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    with suppress(OSError, RuntimeError):
        if writer.can_write_eof():
            writer.write_eof()
