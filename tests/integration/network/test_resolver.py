"""The resolver at a guest's gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mags.host.network import NamespacePool
from mags.host.network.addresses import GATEWAY_ADDRESS
from mags.host.network.resolver import QUERIES_PER_VM, Resolver, failure
from tests.kit.networks import HOST_PUBLIC, ROUTER, Guest, Servers, World, ask, dns_query

UDP = socket.SOCK_DGRAM
QUERY = dns_query("example.org")
ANSWER = QUERY + b" from " + HOST_PUBLIC.encode()


@asynccontextmanager
async def guest_with_resolvers(tmp_path: Path, runtime: Path, dns: list[str]) -> AsyncIterator[Guest]:
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0, dns=dns)
    namespace = await pool.take()
    guest = Guest(namespace)
    try:
        yield guest
    finally:
        guest.close()
        await pool.release(namespace)
        await pool.aclose()


async def test_questions_go_to_the_resolver_of_the_host(guest: Guest) -> None:
    for kind in (UDP, socket.SOCK_STREAM):
        assert await asyncio.to_thread(guest.ask, GATEWAY_ADDRESS, 53, QUERY, kind=kind) == ANSWER


async def test_the_next_resolver_is_asked_when_one_is_down(world: World, tmp_path: Path, runtime: Path) -> None:
    async with guest_with_resolvers(tmp_path, runtime, ["127.0.0.1", ROUTER]) as guest:
        for kind in (UDP, socket.SOCK_STREAM):
            assert await asyncio.to_thread(guest.ask, GATEWAY_ADDRESS, 53, QUERY, kind=kind) == ANSWER


async def test_a_resolver_on_the_hosts_loopback_is_reached(world: World, tmp_path: Path, runtime: Path) -> None:
    loopback = Servers(None, udp=(53,))
    try:
        async with guest_with_resolvers(tmp_path, runtime, ["127.0.0.53"]) as guest:
            answer = await asyncio.to_thread(guest.ask, GATEWAY_ADDRESS, 53, QUERY, kind=UDP)
            assert answer.startswith(QUERY + b" from 127.")
    finally:
        loopback.close()


async def test_without_a_resolver_the_answer_is_a_failure_at_once(world: World, tmp_path: Path, runtime: Path) -> None:
    async with guest_with_resolvers(tmp_path, runtime, ["127.0.0.1"]) as guest:
        assert await asyncio.to_thread(guest.ask, GATEWAY_ADDRESS, 53, QUERY, kind=UDP) == failure(QUERY)


async def test_only_guests_are_answered(world: World) -> None:
    resolver = Resolver(lambda: [ROUTER], lambda address: address == "127.0.0.9")
    await resolver.open()
    udp, tcp = resolver.ports
    try:

        def knock(source: str, kind: socket.SocketKind, port: int, patience: float) -> bytes:
            with socket.socket(socket.AF_INET, kind) as one:
                one.settimeout(patience)
                one.bind((source, 0))
                try:
                    one.connect(("127.0.0.1", port))
                    one.send(QUERY)
                    return one.recv(4096)
                except (TimeoutError, ConnectionResetError):
                    return b""

        for kind, port in ((UDP, udp), (socket.SOCK_STREAM, tcp)):
            assert await asyncio.to_thread(knock, "127.0.0.9", kind, port, 60) == ANSWER
            assert await asyncio.to_thread(knock, "127.0.0.1", kind, port, 0.3) == b""
    finally:
        await resolver.aclose()


async def test_one_guest_has_a_bounded_number_of_questions_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mags.host.network.resolver.ATTEMPT_SECONDS", 100.0)
    monkeypatch.setattr("mags.host.network.resolver.QUERY_SECONDS", 100.0)
    silent = socket.socket(socket.AF_INET, UDP)
    silent.bind(("127.0.0.1", 0))
    silent.setblocking(False)
    resolver = Resolver(lambda: ["127.0.0.1"], lambda _: True, port=silent.getsockname()[1])
    await resolver.open()
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(socket.AF_INET, UDP) as asking:
            for _ in range(QUERIES_PER_VM + 20):
                asking.sendto(QUERY, ("127.0.0.1", resolver.ports[0]))
                asking.sendto(b"short", ("127.0.0.1", resolver.ports[0]))
            for _ in range(QUERIES_PER_VM):
                async with asyncio.timeout(60):
                    await loop.sock_recv(silent, 4096)
            # A question of somebody else comes through, and right after the ones that were passed on.
            with socket.socket(socket.AF_INET, UDP) as other:
                other.bind(("127.0.0.2", 0))
                other.sendto(dns_query("other.example"), ("127.0.0.1", resolver.ports[0]))
                async with asyncio.timeout(60):
                    assert await loop.sock_recv(silent, 4096) == dns_query("other.example")
    finally:
        await resolver.aclose()
        silent.close()


async def test_a_guest_asks_by_name_with_its_own_c_library(guest: Guest) -> None:
    """Two questions from one port, as resolvers in C libraries send them, are both answered."""

    def both() -> set[bytes]:
        with socket.socket(socket.AF_INET, UDP) as one:
            one.settimeout(20)
            one.connect((GATEWAY_ADDRESS, 53))
            one.send(dns_query("a.example", 1))
            one.send(dns_query("a.example", 2))
            return {one.recv(4096)[:2] for _ in range(2)}

    assert await asyncio.to_thread(guest.do, both) == {b"\0\1", b"\0\2"}
    assert ask(ROUTER, 80)
