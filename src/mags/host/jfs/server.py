"""Connections of one VM: calls are read, done in threads (several at once), and answered in any order."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

from mags.host.jfs import procedures, protocol, rpc
from mags.host.jfs.files import Files
from mags.host.jfs.protocol import MOUNT_PROGRAM, NFS_PROGRAM
from mags.host.jfs.rpc import Call
from mags.host.jfs.xdr import Garbage, Writer

log = logging.getLogger("mags.jfs")

READ_SIZE = 256 << 10
AT_ONCE = 8
"""Calls of one VM in threads at a time. The others wait in its connection: the guest is slowed, not the host."""
CONNECTIONS = 4
"""Of one VM; the guest's kernel uses one."""
KEPT = 256
"""Replies of calls that must not be done twice."""
WRITE_TIMEOUT = 120.0
"""Seconds that a reply waits for a guest that does not read."""

Run = Callable[[Callable[[], bytes]], "asyncio.Future[bytes]"]


class Server:
    """Serves one export. `run` does blocking work in a thread."""

    def __init__(self, files: Files, run: Run) -> None:
        self._files, self._run = files, run
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._replies: OrderedDict[tuple[int, int, int], asyncio.Future[bytes]] = OrderedDict()
        self._connections: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A new connection (the callback of asyncio.start_server)."""
        if len(self._connections) >= CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="jfs-connection")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends or breaks the protocol."""
        try:
            await self._talk(reader, writer)
        except (OSError, Garbage, TimeoutError) as error:
            log.debug("a connection ended: %s", error)
        finally:
            writer.transport.abort()

    async def close(self) -> None:
        """End all connections."""
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        records = rpc.RecordReader()
        try:
            async with asyncio.TaskGroup() as group:
                while data := await reader.read(READ_SIZE):
                    for message in records.feed(data):
                        call = rpc.parse_call(message)
                        await self._slots.acquire()
                        group.create_task(self._handle(call, writer))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _handle(self, call: Call, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await self._reply(call))
            async with asyncio.timeout(WRITE_TIMEOUT):
                await writer.drain()
        finally:
            self._slots.release()

    async def _reply(self, call: Call) -> bytes:
        if call.program not in (NFS_PROGRAM, MOUNT_PROGRAM):
            return rpc.reply(call.xid, rpc.PROG_UNAVAIL)
        if call.version != protocol.VERSION:
            versions = Writer().u32(protocol.VERSION, protocol.VERSION).done()
            return rpc.reply(call.xid, rpc.PROG_MISMATCH, versions)
        known = procedures.PROCEDURES[call.program]
        if call.procedure not in known:
            return rpc.reply(call.xid, rpc.PROC_UNAVAIL)
        if call.program == MOUNT_PROGRAM or call.procedure in procedures.IDEMPOTENT:
            return await self._do(call)
        # Asked again after a lost connection: the first answer counts, or the one still being made.
        key = (call.xid, call.procedure, hash(bytes(call.arguments)))
        if (kept := self._replies.get(key)) is not None:
            return await asyncio.shield(kept)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._replies[key] = answer
        while len(self._replies) > KEPT:
            self._replies.popitem(last=False)
        try:
            reply = await self._do(call)
        except BaseException:
            self._replies.pop(key, None)
            answer.cancel()
            raise
        answer.set_result(reply)
        return reply

    async def _do(self, call: Call) -> bytes:
        def work() -> bytes:
            if call.program == MOUNT_PROGRAM:
                return procedures.mount(self._files, call.procedure, call.arguments)
            return procedures.nfs(self._files, call.procedure, call.arguments, call.caller)

        try:
            return rpc.reply(call.xid, rpc.SUCCESS, await self._run(work))
        except Garbage:
            return rpc.reply(call.xid, rpc.GARBAGE_ARGS)
        except Exception:
            log.exception("a call of a guest failed in a way that is ours")
            return rpc.reply(call.xid, rpc.SYSTEM_ERR)
