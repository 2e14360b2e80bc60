"""A little world for networks of VMs: a host with a way to an internet, and guests with a kernel's own TCP.

Nothing of it touches the machine's networks: `World` moves the test's main thread into a namespace of its own, "the
host", for as long as it lives. A second namespace, "the internet", has servers behind public, private and link-local
addresses, so that a guest that is refused one is refused by rules and not for want of a server. A `Guest` is a third
kind of namespace, whose frames a thread carries to and from a VM's tap as a hypervisor does.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

from pyroute2 import IPRoute

from mags.host.network import Namespace, kernel
from mags.host.network.addresses import GATEWAY_ADDRESS, GUEST_ADDRESS

T = TypeVar("T")

HOST_PUBLIC = "203.0.113.2"
ROUTER = "203.0.113.1"
WEBSITE = "198.51.100.7"
PRIVATE = ("10.99.0.1", "172.20.0.1", "192.168.50.1", "100.64.1.1", "169.254.169.254", "198.18.0.1")
TIMEOUT = 60.0
IP_PKTINFO = 8
"""<linux/in.h>; Python's socket does not know it."""


class Place:
    """A network namespace that lives with this object, and the threads that work in it."""

    def __init__(self) -> None:
        self.netns = self._make()

    @staticmethod
    def _make() -> int:
        found: list[int] = []

        def work() -> None:
            kernel.unshare()
            found.append(os.open(kernel.OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return found[0]

    def do(self, work: Callable[[], T]) -> T:
        """Run in the namespace, in a thread that ends there."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                kernel.enter(self.netns)
                outcome.append(work())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def ip(self, *commands: str) -> None:
        """Run lines of ip(8)."""
        self.do(lambda: ip(*commands))

    def close(self) -> None:
        os.close(self.netns)


def ip(*commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands).encode(), check=True, timeout=TIMEOUT)


class Servers:
    """Answers in a namespace: TCP ports with who the client was and what it said, UDP ports likewise."""

    def __init__(self, place: Place | None, *, tcp: tuple[int, ...] = (), udp: tuple[int, ...] = ()) -> None:
        def listen() -> list[socket.socket]:
            found = []
            for kind, ports in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
                for port in ports:
                    one = socket.socket(socket.AF_INET, kind)
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if kind == socket.SOCK_DGRAM:  # answer from the address that was asked
                        one.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
                    one.bind(("0.0.0.0", port))
                    if kind == socket.SOCK_STREAM:
                        one.listen(64)
                    found.append(one)
            return found

        self._sockets = place.do(listen) if place else listen()
        self._wake, self._end = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def ports(self) -> list[int]:
        return [one.getsockname()[1] for one in self._sockets]

    def _serve(self) -> None:
        while True:
            every: list[int | socket.socket] = [self._wake, *self._sockets]
            ready, _, _ = select.select(every, [], [])
            if self._wake in ready:
                return
            for one in self._sockets:
                if one not in ready:
                    continue
                try:
                    self._answer(one)
                except OSError:
                    continue

    @staticmethod
    def _answer(one: socket.socket) -> None:
        if one.type == socket.SOCK_DGRAM:
            data, control, _, client = one.recvmsg(4096, 64)
            reply = [(level, kind, struct.pack("i", 0) + info[4:]) for level, kind, info in control]
            one.sendmsg([data + b" from " + client[0].encode()], reply, 0, client)
            return
        connection, client = one.accept()
        with connection:
            connection.settimeout(TIMEOUT)
            data = connection.recv(4096)
            connection.sendall(data + b" from " + client[0].encode())

    def close(self) -> None:
        os.close(self._end)
        self._thread.join()
        os.close(self._wake)
        for one in self._sockets:
            one.close()


def ask(address: str, port: int, words: bytes = b"hello", *, kind: int = socket.SOCK_STREAM) -> bytes:
    """What a server says, from the namespace of the calling thread. Raises OSError when there is no way."""
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(TIMEOUT)
        one.connect((address, port))
        one.send(words)
        return one.recv(4096)


class Guest(Place):
    """What stands for a VM: the far end of a namespace's tap, with an IP stack like a guest's."""

    def __init__(self, namespace: Namespace, *, address: str = GUEST_ADDRESS) -> None:
        super().__init__()
        self._far = namespace.open_tap(0)
        self._near = self.do(lambda: kernel.open_tap("eth0"))
        self.ip(
            "link set lo up",
            f"address add {address}/30 dev eth0",
            "link set eth0 up",
            f"route add default via {GATEWAY_ADDRESS}",
        )
        self._wake, self._end = os.pipe()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        other = {self._near: self._far, self._far: self._near}
        while True:
            ready, _, _ = select.select([self._wake, *other], [], [])
            if self._wake in ready:
                return
            for one in ready:
                try:
                    os.write(other[one], os.read(one, 1 << 17))
                except OSError:
                    continue  # a device that is down, or a full queue: the frame is lost, as on a wire

    def ask(self, address: str, port: int, words: bytes = b"hello", *, kind: int = socket.SOCK_STREAM) -> bytes:
        return self.do(lambda: ask(address, port, words, kind=kind))

    def close(self) -> None:
        os.close(self._end)
        self._thread.join()
        for one in (self._wake, self._near, self._far):
            os.close(one)
        super().close()


class World:
    """The host, in which the main thread is from now on, and the internet."""

    def __init__(self) -> None:
        self._home = os.open(kernel.OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
        self.internet = Place()
        self.host = Place()
        kernel.enter(self.host.netns)
        with IPRoute() as netlink:
            peer = {"ifname": "wan0", "net_ns_fd": self.internet.netns}
            netlink.link("add", ifname="eth0", kind="veth", peer=peer)
        ip(
            "link set lo up",
            f"address add {HOST_PUBLIC}/30 dev eth0",
            "link set eth0 up",
            f"route add default via {ROUTER}",
        )
        self.internet.ip(
            "link set lo up",
            f"address add {ROUTER}/30 dev wan0",
            *(f"address add {address}/32 dev lo" for address in (WEBSITE, *PRIVATE)),
            "link set wan0 up",
        )
        self.servers = Servers(self.internet, tcp=(25, 53, 80), udp=(53, 123))

    def close(self) -> None:
        self.servers.close()
        kernel.enter(self._home)
        os.close(self._home)
        self.host.close()
        self.internet.close()


def dns_query(name: str, identity: int = 0x1234) -> bytes:
    """A question for an A record."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", identity, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
