"""Reading resolv.conf, and the answer of a resolver that has none."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.host.network import resolver as resolvers
from mags.host.network.resolver import HEADER, HostResolvers, Resolver, failure
from tests.kit.networks import dns_query


def test_a_failure_answers_the_question_it_is_for() -> None:
    query = dns_query("example.org", 0xBEEF)
    answer = failure(query)
    assert answer[:2] == b"\xbe\xef"
    assert answer[2] & 0x80  # a response
    assert answer[2] & 0x01 == query[2] & 0x01  # recursion desired, as asked
    assert answer[3] & 0x0F == 2  # server failure
    assert len(answer) == HEADER


@given(st.binary(min_size=HEADER, max_size=600))
def test_any_bytes_get_a_failure_with_no_records(query: bytes) -> None:
    assert failure(query)[4:] == bytes(8)


def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    resolvers = HostResolvers(file=file)
    assert resolvers() == ()
    file.write_text("# by hand\nsearch lan\nnameserver 10.0.0.1\nnameserver\nnameserver fe80::1%eth0\noptions x\n")
    assert resolvers() == ("10.0.0.1", "fe80::1%eth0")
    file.write_text("nameserver 10.0.0.2\n")
    os.utime(file, ns=(1, 1))
    assert resolvers() == ("10.0.0.2",)
    file.unlink()
    assert resolvers() == ("10.0.0.2",)


def test_only_three_nameservers_count(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("".join(f"nameserver 10.0.0.{number}\n" for number in range(1, 6)))
    assert HostResolvers(file=file)() == ("10.0.0.1", "10.0.0.2", "10.0.0.3")


def test_set_resolvers_win(tmp_path: Path) -> None:
    assert HostResolvers(["9.9.9.9"], tmp_path / "none")() == ("9.9.9.9",)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_client_that_takes_no_answer_is_dropped_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver has said all and gone: what the client does not take must not wait for it for ever."""
    monkeypatch.setattr(resolvers, "CONNECTION_SECONDS", 1.0)
    answer = bytes(48 * 1024)

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    resolver = Resolver(lambda: ("127.0.0.1",), lambda _: True, port)
    await resolver.open()
    assert resolver._server is not None
    for listening in resolver._server.sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.setblocking(False)
        before = descriptors()
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", resolver.ports[1]))
        await loop.sock_sendall(client, b"?")
        async with asyncio.timeout(15):
            while descriptors() == before:
                await asyncio.sleep(0.01)
            while descriptors() > before:
                await asyncio.sleep(0.01)
    await resolver.aclose()
    server.close()
