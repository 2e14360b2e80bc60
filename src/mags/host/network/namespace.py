"""The network of one VM, as the rest of the host sees it."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from mags.host.network import connections, kernel
from mags.host.network.addresses import TAP


@dataclass(frozen=True, slots=True)
class Namespace:
    """One VM's network namespace with the tap device in it.

    index: its number on this installation; `NamespacePool.adopt` takes it.
    name: the name of its device on the host, also fit for logs.
    path: the namespace, as a file for setns(2).
    address: the VM, from the host: a connection to any port of it reaches the same port of the guest.
    host_address: the host, from this VM only: what listens here on a port of the pool's services is what the
        guest finds at its gateway.
    """

    index: int
    name: str
    path: Path
    address: str
    host_address: str
    _traffic: Callable[[int], Awaitable[tuple[int, int]]] = field(repr=False, compare=False)
    tap: str = TAP

    def open_tap(self, uid: int) -> int:
        """A descriptor of the tap for a hypervisor of user `uid` (`-netdev tap,fd=`). The caller closes it.

        It has virtio-net headers (IFF_VNET_HDR). One process at a time: OSError (EBUSY) while another holds it.
        Takes about 0.2 ms, in a thread that ends in the namespace.
        """
        outcome: list[int | OSError] = []

        def work() -> None:
            try:
                kernel.enter(self.path)
                outcome.append(kernel.open_tap(self.tap, owner=uid))
            except OSError as error:
                outcome.append(error)

        thread = threading.Thread(target=work, name="tap")
        thread.start()
        thread.join()
        if isinstance(outcome[0], OSError):
            raise outcome[0]
        return outcome[0]

    def cut(self) -> None:
        """Reset the TCP connections that programs on this machine have to the VM. Takes less than a millisecond."""
        connections.cut(self.address)

    async def count_traffic(self) -> tuple[int, int]:
        """Bytes sent to the VM and bytes that came from it since it was made.

        With Ethernet headers, and a little ARP between namespace and host; the guest's own ARP is not counted.
        Raises NetworkMissing once it is released.
        """
        return await self._traffic(self.index)
