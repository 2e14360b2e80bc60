"""The network as it is inside a real VM. That each kind of address is refused by rules is tested packet by packet in
tests/integration/network; here it is the whole way, from a program in the guest."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.request

import pytest

from mags.host.network import NamespacePool
from mags.host.network.addresses import GATEWAY_ADDRESS
from tests.kit.networks import HOST_PUBLIC, PRIVATE, WEBSITE, Guest, Servers, ask, ip
from tests.vm.network.conftest import SITE_NAME, Inside

pytestmark = pytest.mark.vm


async def test_a_program_in_a_vm_reaches_the_internet_by_name_and_nothing_private(
    inside: Inside, pool: NamespacePool
) -> None:
    on_host = Servers(None, tcp=(8080,))
    neighbour = await pool.take()
    other = Guest(neighbour)
    in_other = Servers(other, tcp=(80,))
    forbidden = [
        *((address, 80) for address in PRIVATE),
        (neighbour.address, 80),
        (inside.namespace.host_address, 8080),
        (GATEWAY_ADDRESS, 8080),
        (HOST_PUBLIC, 8080),
    ]
    try:
        for address, port in forbidden:
            if address != GATEWAY_ADDRESS:
                assert await asyncio.to_thread(ask, address, port), "there is nothing that could be refused"
        answer = f"hi from {HOST_PUBLIC}"
        assert await inside.run(f"echo hi | nc -w 20 {SITE_NAME} 80 | tr -d '\\n'") == (0, answer)
        probes = "\n".join(
            f"echo hi | nc -w 20 {address} {port} && echo REACHED {address}" for address, port in forbidden
        )
        status, output = await inside.run(f"{probes}\ntrue")
        assert status == 0 and "REACHED" not in output and "from" not in output
    finally:
        in_other.close()
        other.close()
        on_host.close()
        await pool.release(neighbour)


async def test_the_host_reaches_a_server_in_a_vm(inside: Inside) -> None:
    server = asyncio.create_task(inside.run("echo welcome | nc -l -p 8000"))
    async with asyncio.timeout(60):
        while True:
            try:
                answer = await asyncio.to_thread(ask, inside.namespace.address, 8000)
                break
            except OSError:
                await asyncio.sleep(0.05)
    assert answer == b"welcome\n"
    assert (await server)[0] == 0
    received, sent = await inside.namespace.count_traffic()
    assert received > 100 and sent > 100


async def test_ipv6_leads_a_vm_nowhere(inside: Inside) -> None:
    """Even if root in it sets up what it lacks."""
    host, guest = "fd00:9::1", "fd00:9::2"
    ip(f"address add {host}/128 dev lo nodad")
    with socket.create_server((host, 8080), family=socket.AF_INET6) as server:
        answering = threading.Thread(target=_answer, args=(server,))
        answering.start()
        try:
            probe = f"wget -q -T 5 -O - 'http://[{host}]:8080/'"
            setup = f"ip -6 address add {guest}/64 dev eth0; ip -6 route add default dev eth0; ip -6 address"
            switch = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6"
            status, output = await inside.run(f"echo 0 >{switch}; {setup}; {probe}")
            assert guest in output, "the guest has no IPv6: nothing was tried"
            assert status != 0 and "REACHED" not in output
        finally:
            await asyncio.to_thread(urllib.request.urlopen, f"http://[{host}]:8080/")  # there is one; and it ends it
            answering.join()


def _answer(server: socket.socket) -> None:
    with server.accept()[0] as client:
        client.recv(4096)
        client.sendall(b"HTTP/1.0 200 OK\r\n\r\nREACHED")


async def test_a_vm_has_one_way_out_and_no_mail(inside: Inside) -> None:
    status, output = await inside.run(f"ip -4 route; ip -6 route show default; wget -T 5 -O- http://{WEBSITE}:25")
    assert status != 0
    assert f"default via {GATEWAY_ADDRESS}" in output and "default via fe80" not in output
