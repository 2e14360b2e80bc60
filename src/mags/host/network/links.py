"""Devices, addresses and routes of VMs' networks, over netlink."""

from __future__ import annotations

import socket
from ipaddress import IPv4Interface
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from mags.host.network.addresses import (
    GATEWAY_ADDRESS,
    GATEWAY_MAC,
    GUEST_ADDRESS,
    GUEST_PREFIX,
    LOOPBACK,
    TAP,
    UPLINK,
    Pair,
)
from mags.host.network.errors import NetworkMissing

_NOPREFIXROUTE = 0x200
"""IFA_F_NOPREFIXROUTE: the kernel adds no route of its own for the address."""

LAST_RESORT = 1000
"""Metric of a route that is only taken when there is no other."""

NOT_THERE = 19
"""ENODEV."""


def index_of(name: str) -> int | None:
    """The number of a device in this thread's namespace, by its name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def wire_namespace(pair: Pair, veth: str, host: int) -> None:
    """Make this thread's (new) namespace the network of a VM. The tap is there already.

    veth: name of the host's end. host: descriptor of the host's namespace.
    """
    with IPRoute() as netlink:
        netlink.link("add", ifname=UPLINK, kind="veth", peer={"ifname": veth, "net_ns_fd": host})
        tap, uplink = index_of(TAP), index_of(UPLINK)
        netlink.link("set", index=tap, address=GATEWAY_MAC, state="up")
        netlink.addr("add", index=tap, address=GATEWAY_ADDRESS, prefixlen=GUEST_PREFIX)
        netlink.link("set", index=uplink, state="up")
        netlink.addr("add", index=uplink, address=pair.address, prefixlen=32)
        netlink.route("add", dst=f"{pair.host}/32", oif=uplink, scope=253)
        netlink.route("add", dst="default", gateway=pair.host, oif=uplink)
        # Where packets for the guest go while no hypervisor holds the tap: the rules refuse them there. Of the same
        # length as the tap's own route, or it would always win.
        loopback = index_of(LOOPBACK)
        netlink.link("set", index=loopback, state="up")
        network = IPv4Interface(f"{GUEST_ADDRESS}/{GUEST_PREFIX}").network
        netlink.route("add", dst=str(network), oif=loopback, priority=LAST_RESORT, scope=253)


def wire_host(netlink: Any, pair: Pair, veth: str) -> int:
    """Give the host's end its address and the route to the VM; returns the device's number.

    Raises FileExistsError when somebody else has a route to this very address: the kernel's table decides between
    two installations that share a subnet.
    """
    index = index_of(veth)
    if index is None:
        raise OSError(NOT_THERE, "the device vanished", veth)
    netlink.addr("add", index=index, address=pair.host, prefixlen=32, flags=_NOPREFIXROUTE)
    netlink.link("set", index=index, state="up")
    try:
        netlink.route("add", dst=f"{pair.address}/32", oif=index, prefsrc=pair.host, scope=253)
    except NetlinkError as error:
        if error.code == 17:
            raise FileExistsError(17, "the address is in use", pair.address) from error
        raise
    return index


def remove(netlink: Any, name: str) -> None:
    """Remove a device, and with a veth its other end. Harmless if it is not there."""
    index = index_of(name)
    if index is None:
        return
    try:
        netlink.link("del", index=index)
    except NetlinkError as error:
        if error.code != NOT_THERE:
            raise


def names(netlink: Any, prefix: str) -> list[str]:
    """Names of devices that begin so."""
    every = (link.get_attr("IFLA_IFNAME") for link in netlink.get_links())
    return [name for name in every if name.startswith(prefix)]


def has_address(netlink: Any, name: str, address: str) -> bool:
    """Whether a device is there, with that IPv4 address."""
    index = index_of(name)
    if index is None:
        return False
    return any(found.get_attr("IFA_LOCAL") == address for found in netlink.get_addr(family=2, index=index))


def peer(netlink: Any, name: str) -> str | None:
    """The address of the VM behind a device, by the route that leads there."""
    index = index_of(name)
    if index is None:
        return None
    routes = netlink.get_routes(family=socket.AF_INET, table=254, oif=index)
    return next((str(route.get_attr("RTA_DST")) for route in routes if route["dst_len"] == 32), None)


def traffic(netlink: Any, name: str) -> tuple[int, int]:
    """Bytes that the device has received and sent so far. Raises NetworkMissing if it is not there."""
    index = index_of(name)
    try:
        if index is None:
            raise NetworkMissing(f"The network {name} is gone.")
        (link,) = netlink.link("get", index=index)
    except NetlinkError as error:
        raise NetworkMissing(f"The network {name} is gone.") from error
    stats = link.get_attr("IFLA_STATS64")
    return int(stats["rx_bytes"]), int(stats["tx_bytes"])


def foreign_routes(netlink: Any, prefix: str) -> list[str]:
    """Networks (CIDR, IPv4) of all routes of the main table that do not lead to devices of ours."""
    ours = {link["index"] for link in netlink.get_links() if link.get_attr("IFLA_IFNAME").startswith(prefix)}
    found = []
    for route in netlink.get_routes(family=2, table=254):
        destination = route.get_attr("RTA_DST")
        if destination and route.get_attr("RTA_OIF") not in ours:
            found.append(f"{destination}/{route['dst_len']}")
    return found
