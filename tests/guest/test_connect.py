"""Connections to servers inside the guest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mags.host.guest import Builtin, Channel, Exec
from mags.protocol.guest.answers import RESULT, decode_results
from tests.guest.kit import TIMEOUT, collect


async def reverse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each connection with what it sent, backwards."""
    writer.write((await reader.read())[::-1])
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def server(host: str) -> AsyncIterator[int]:
    serving = await asyncio.start_server(reverse, host, 0)
    async with serving:
        yield serving.sockets[0].getsockname()[1]


def connecting(port: int, host: str = "localhost", wait_ms: int = 0) -> Exec:
    return Exec(builtin=Builtin.CONNECT, argv=[host, str(port), str(wait_ms)], stdin=True)


async def test_bytes_go_both_ways_with_half_closes(channel: Channel) -> None:
    async with server("127.0.0.1") as port:
        process = await channel.exec(connecting(port))
        data = bytes(range(256)) * 2000
        async with asyncio.TaskGroup() as group:
            group.create_task(feed(channel, process.id, data))
            outcome = await collect(process)
    assert outcome.stdout == data[::-1]
    assert outcome.exit.code == 0


async def feed(channel: Channel, id: int, data: bytes) -> None:
    process = channel.processes[id]
    await process.write_stdin(data)
    await process.close_stdin()


async def test_a_server_that_only_speaks_ipv6_is_found(channel: Channel) -> None:
    async with server("::1") as port:
        process = await channel.exec(connecting(port))
        await feed(channel, process.id, b"abc")
        assert (await collect(process)).stdout == b"cba"


async def test_a_named_host_is_reached(channel: Channel) -> None:
    async with server("127.0.0.1") as port:
        process = await channel.exec(connecting(port, "127.0.0.1"))
        await feed(channel, process.id, b"abc")
        assert (await collect(process)).stdout == b"cba"


async def refusal(channel: Channel, wish: Exec) -> tuple[int, str]:
    process = await channel.exec(wish)
    data = b""
    async with asyncio.timeout(TIMEOUT):
        while (output := await process.next_output()) is not None:
            assert output.stream == RESULT
            data += output.data
        assert (await process.wait()).code == 1
    await process.release()
    (result,), _ = decode_results(data)
    return result.errno, result.message


async def test_a_closed_port_is_refused_with_a_reason(channel: Channel) -> None:
    async with server("127.0.0.1") as port:
        pass
    assert await refusal(channel, connecting(port)) == (111, f"localhost port {port}: Connection refused")


async def test_a_bad_port_is_refused(channel: Channel) -> None:
    assert await refusal(channel, connecting(70000)) == (22, "no such port")


async def test_it_waits_for_a_server_that_is_being_started(channel: Channel) -> None:
    async with server("127.0.0.1") as port:
        pass
    process = await channel.exec(connecting(port, wait_ms=60_000))
    await asyncio.sleep(0.1)
    serving = await asyncio.start_server(reverse, "127.0.0.1", port)
    async with serving:
        await feed(channel, process.id, b"abc")
        assert (await collect(process)).stdout == b"cba"
