"""Where a guest gets to, and who gets to a guest."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from mags.host.network import NamespacePool, tracking
from mags.host.network.addresses import GATEWAY_ADDRESS, GUEST_ADDRESS
from tests.kit.networks import HOST_PUBLIC, PRIVATE, ROUTER, WEBSITE, Guest, Servers, World, ask

UDP = socket.SOCK_DGRAM


async def test_a_guest_reaches_the_internet_under_the_hosts_address(guest: Guest) -> None:
    answer = await asyncio.to_thread(guest.ask, WEBSITE, 80)
    assert answer == b"hello from " + HOST_PUBLIC.encode()
    assert await asyncio.to_thread(guest.ask, WEBSITE, 123, b"time", kind=UDP) == b"time from " + HOST_PUBLIC.encode()


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_guest_reaches_no_private_address(world: World, guest: Guest, address: str) -> None:
    assert ask(address, 80)  # there is a server, and the host gets to it
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(guest.ask, address, 80)
    with pytest.raises(OSError, match="No route to host"):
        await asyncio.to_thread(guest.ask, address, 123, kind=UDP)


async def test_a_guest_reaches_no_address_of_its_host(pool: NamespacePool) -> None:
    servers = Servers(None, tcp=(22, 8080))
    namespace = await pool.take()
    guest = Guest(namespace)
    try:
        for address in (HOST_PUBLIC, "127.0.0.1", namespace.host_address, GATEWAY_ADDRESS):
            for port in (22, 8080):
                if address != GATEWAY_ADDRESS:
                    assert ask(address, port)
                guest_sees = await asyncio.to_thread(_refused, guest, address, port)
                assert guest_sees, (address, port)
    finally:
        guest.close()
        servers.close()
        await pool.release(namespace)


def _refused(guest: Guest, address: str, port: int) -> bool:
    try:
        guest.ask(address, port)
    except OSError:
        return True
    return False


async def test_a_guest_reaches_no_other_guest(pool: NamespacePool) -> None:
    spaces = [await pool.take() for _ in range(2)]
    one, other = (Guest(space) for space in spaces)
    servers = Servers(other, tcp=(80,))
    try:
        assert await asyncio.to_thread(ask, spaces[1].address, 80)
        for address in (spaces[1].address, spaces[1].host_address):
            assert await asyncio.to_thread(_refused, one, address, 80)
    finally:
        servers.close()
        one.close()
        other.close()
        for space in spaces:
            await pool.release(space)


async def test_mail_is_refused_unless_allowed(guest: Guest, pool: NamespacePool, tmp_path: Path, runtime: Path) -> None:
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(guest.ask, WEBSITE, 25)
    postal = await NamespacePool.open(
        tmp_path / "postal",
        runtime=runtime,
        target=0,
        allow_smtp=True,
        allowed=["10.99.0.0/16"],
        blocked=[f"{ROUTER}/32"],
    )
    namespace = await postal.take()
    sender = Guest(namespace)
    try:
        assert await asyncio.to_thread(sender.ask, WEBSITE, 25)
        assert await asyncio.to_thread(sender.ask, "10.99.0.1", 80)
        assert await asyncio.to_thread(_refused, sender, "192.168.50.1", 80)
        assert await asyncio.to_thread(_refused, sender, ROUTER, 80)
    finally:
        sender.close()
        await postal.release(namespace)
        await postal.aclose()


async def test_the_host_reaches_every_port_of_a_guest(pool: NamespacePool) -> None:
    namespace = await pool.take()
    guest = Guest(namespace)
    servers = Servers(guest, tcp=(80, 40000), udp=(5000,))
    try:
        for port in (80, 40000):
            answer = await asyncio.to_thread(ask, namespace.address, port)
            assert answer == b"hello from " + namespace.host_address.encode()
        assert await asyncio.to_thread(ask, namespace.address, 5000, b"x", kind=UDP)
        to_guest, from_guest = await namespace.count_traffic()
        assert to_guest > 100 and from_guest > 100
    finally:
        servers.close()
        guest.close()
        await pool.release(namespace)


async def test_nobody_else_reaches_a_guest_through_the_host(world: World, pool: NamespacePool) -> None:
    namespace = await pool.take()
    guest = Guest(namespace)
    servers = Servers(guest, udp=(5000,))
    world.internet.ip(f"route add {namespace.address}/32 via {HOST_PUBLIC}")
    try:

        def knock() -> None:
            with socket.socket(socket.AF_INET, UDP) as one:
                one.connect((namespace.address, 5000))
                one.send(b"x")

        before = await namespace.count_traffic()
        await asyncio.to_thread(world.internet.do, knock)
        assert await asyncio.to_thread(ask, namespace.address, 5000, b"from the host", kind=UDP)
        after = await namespace.count_traffic()
        assert after[0] - before[0] < 100  # one datagram, not two
    finally:
        world.internet.ip(f"route del {namespace.address}/32")
        servers.close()
        guest.close()
        await pool.release(namespace)


async def test_a_guest_cannot_send_under_another_address(world: World, guest: Guest) -> None:
    guest.ip("address add 198.51.100.99/32 dev lo")

    def send(words: bytes, source: str) -> None:
        with socket.socket(socket.AF_INET, UDP) as one:
            one.bind((source, 0))
            one.sendto(words, (WEBSITE, 124))

    with world.internet.do(lambda: socket.socket(socket.AF_INET, UDP)) as listener:
        listener.bind((WEBSITE, 124))
        listener.settimeout(60)
        await asyncio.to_thread(guest.do, lambda: send(b"honest", GUEST_ADDRESS))
        assert listener.recv(100) == b"honest"
        await asyncio.to_thread(guest.do, lambda: send(b"false", "198.51.100.99"))
        await asyncio.to_thread(guest.do, lambda: send(b"honest again", GUEST_ADDRESS))
        assert listener.recv(100) == b"honest again"


async def test_services_of_the_host_are_at_the_gateway(world: World, tmp_path: Path, runtime: Path) -> None:
    servers = Servers(None, tcp=(0,))
    served = servers.ports[0]
    pool = await NamespacePool.open(tmp_path / "state", runtime=runtime, target=0, host_services={2049: served})
    namespace = await pool.take()
    guest = Guest(namespace)
    try:
        answer = await asyncio.to_thread(guest.ask, GATEWAY_ADDRESS, 2049)
        assert answer == b"hello from " + namespace.address.encode()  # the server knows which VM asks
        assert await asyncio.to_thread(_refused, guest, GATEWAY_ADDRESS, served)
        assert await asyncio.to_thread(_refused, guest, HOST_PUBLIC, served)
        assert await asyncio.to_thread(_refused, guest, HOST_PUBLIC, 2049)
        with pytest.raises(TimeoutError):
            world.internet.do(lambda: _try_briefly(HOST_PUBLIC, served))
    finally:
        guest.close()
        servers.close()
        await pool.release(namespace)
        await pool.aclose()


async def test_what_a_dead_vm_had_open_does_not_lead_the_next_one_astray(
    world: World, tmp_path: Path, runtime: Path
) -> None:
    """Of the same address and port, though the service has moved: the kernel remembers a connection for five days."""
    lines, answers, addresses = [], [], []

    def connect() -> bytes:
        line = socket.socket()
        lines.append(line)
        line.settimeout(10)
        line.bind(("", 800))
        line.connect((GATEWAY_ADDRESS, 2049))
        line.send(b"hello")
        return line.recv(4096)

    for name in ("first", "second"):
        servers = Servers(None, tcp=(0,))
        services = {2049: servers.ports[0]}
        pool = await NamespacePool.open(tmp_path / name, runtime=runtime, target=0, host_services=services)
        namespace = await pool.take()
        addresses.append(namespace.address)
        guest = Guest(namespace)
        try:
            answers.append(await asyncio.to_thread(guest.do, connect))
        finally:
            guest.close()  # as if its hypervisor was killed: nobody is told
            servers.close()
            await pool.release(namespace)
            await pool.aclose()
    for line in lines:
        line.close()
    assert addresses[0] == addresses[1]
    assert answers == [b"hello from " + addresses[0].encode()] * 2
    assert await asyncio.to_thread(tracking.forget, addresses[0]) == 0


def _try_briefly(address: str, port: int) -> None:
    with socket.create_connection((address, port), timeout=0.5):
        pass


async def test_many_connections_of_one_guest_are_bounded(guest: Guest) -> None:
    """Datagrams to ever new ports: each is a connection to the host's table, which all share."""

    def flood() -> bool:
        with socket.socket(socket.AF_INET, UDP) as one:
            for first in range(1000, 61000, 500):
                for port in range(first, first + 500):
                    one.sendto(b"x", (WEBSITE, port))
                try:
                    ask(WEBSITE, 80)
                except ConnectionRefusedError:
                    return True
        return False

    assert await asyncio.to_thread(guest.do, flood)


async def test_an_address_of_the_guest_is_the_same_everywhere(pool: NamespacePool) -> None:
    spaces = [await pool.take() for _ in range(3)]
    guests = [Guest(space) for space in spaces]
    servers = [Servers(guest, tcp=(80,)) for guest in guests]
    try:
        answers = await asyncio.gather(*(asyncio.to_thread(ask, space.address, 80) for space in spaces))
        assert answers == [b"hello from " + space.host_address.encode() for space in spaces]
        assert all(guest.do(lambda: ask(GUEST_ADDRESS, 80)) for guest in guests)
    finally:
        for server in servers:
            server.close()
        for guest in guests:
            guest.close()
        for space in spaces:
            await pool.release(space)
