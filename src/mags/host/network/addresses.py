"""Addresses of a VM's network: the same inside every VM, unique on the host outside.

    guest 172.16.0.2 -- tap0 172.16.0.1 [namespace] up0 ADDRESS ===== HOST mgID-INDEX [host] -- internet

Every VM has a pair of addresses of the subnet, the even one (HOST) on the host's end of its veth pair and the odd
one (ADDRESS) on the namespace's. ADDRESS is the VM, seen from the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network

GUEST_ADDRESS = "172.16.0.2"
"""The address of every guest, so that a clone needs no new one."""

GATEWAY_ADDRESS = "172.16.0.1"
"""Every guest's gateway, resolver and way to services of the host."""

GUEST_PREFIX = 30

GATEWAY_MAC = "02:6d:61:67:73:01"
"""The same in every namespace: the template's ARP cache is cloned too, and must be right in every clone."""

TAP = "tap0"
UPLINK = "up0"
LOOPBACK = "lo"

FORBIDDEN = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",  # private (RFC 1918); other VMs are in here
    "100.64.0.0/10",  # shared by carriers (RFC 6598)
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local: the metadata service of clouds
    "172.16.0.0/12",  # private (RFC 1918)
    "192.0.0.0/24",  # protocol assignments (RFC 6890)
    "192.168.0.0/16",  # private (RFC 1918)
    "198.18.0.0/15",  # benchmarks (RFC 2544), used as private
    "224.0.0.0/3",  # multicast, reserved, broadcast
)
"""Where no guest may connect to: every range that is not the internet (source: IANA's special-purpose registry)."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two ends of one VM's veth pair."""

    host: str
    address: str


@dataclass(frozen=True, slots=True)
class Subnet:
    """The range that the VMs of one host get their pairs from."""

    network: IPv4Network

    @classmethod
    def parse(cls, text: str) -> Subnet:
        """From CIDR notation. Raises ValueError unless it is a private IPv4 network of at least four addresses."""
        network = IPv4Network(text)
        if not network.is_private or network.prefixlen > 30 or network.overlaps(IPv4Network("172.16.0.0/30")):
            raise ValueError(f"{text} is no private IPv4 network of at least 4 addresses outside 172.16.0.0/30")
        return cls(network)

    @property
    def size(self) -> int:
        """How many VMs it has room for. The first pair is left out: its even address names the network."""
        return self.network.num_addresses // 2 - 1

    def holds(self, address: str) -> bool:
        """Whether an address is one of the subnet's."""
        try:
            return IPv4Address(address) in self.network
        except AddressValueError:
            return False

    def overlaps(self, network: str) -> bool:
        """Whether it has addresses in common with a network in CIDR notation."""
        return self.network.overlaps(IPv4Network(network))

    def pair(self, index: int) -> Pair:
        """The addresses of VM number `index`, from 0 on."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        first: IPv4Address = self.network.network_address + 2 * (index + 1)
        return Pair(str(first), str(first + 1))
