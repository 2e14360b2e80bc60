"""Makes and unmakes namespaces, in threads of its own.

One thread builds, and walks from namespace to namespace for it; the event loop's thread never leaves the host's. A
second one destroys, as the kernel makes it wait (40 ms, against 10 for building). Nothing here is asynchronous.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from mags.host.network import connections, kernel, links, rules, tracking
from mags.host.network.addresses import TAP, Subnet
from mags.host.network.errors import NetworkUnavailable

log = logging.getLogger(__name__)

NFT_TIMEOUT = 20.0
"""Seconds until a call of nft is given up."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the networks of one installation are.

    installation: its id, part of every name. directory: holds the namespaces' names.
    """

    installation: str
    directory: Path
    subnet: Subnet
    policy: rules.Policy

    def path(self, index: int) -> Path:
        return self.directory / str(index)

    def veth(self, index: int) -> str:
        return f"{rules.interface_prefix(self.installation)}{index}"


class _Desk(threading.local):
    """What a thread needs at hand: its netlink socket and the host's namespace."""

    netlink: Any
    host: int


class Workshop:
    """All work on namespaces. Every method but `close` runs in `builder` or `wrecker`; only the first may `make`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._desk = _Desk()
        # Threads begin in the namespace of the thread that first submits to them: the event loop's, the host's.
        self.builder = ThreadPoolExecutor(1, thread_name_prefix="network-build", initializer=self._begin)
        self.wrecker = ThreadPoolExecutor(1, thread_name_prefix="network-wreck", initializer=self._begin)

    def _begin(self) -> None:
        self._desk.host = os.open(kernel.OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
        self._desk.netlink = IPRoute()

    def _end(self) -> None:
        self._desk.netlink.close()
        os.close(self._desk.host)

    def close(self) -> None:
        """End the threads, after what they were asked to do."""
        for thread in (self.builder, self.wrecker):
            thread.submit(self._end)
            thread.shutdown()

    def apply_host_rules(self, services: rules.HostServices) -> None:
        """Let packets pass between VMs and the internet, by our rules. Can be repeated."""
        try:
            kernel.write_sysctl("ipv4/ip_forward", "1")
        except OSError as error:
            raise NetworkUnavailable(
                f"IP forwarding cannot be turned on ({error.strerror}): set net.ipv4.ip_forward=1, as root."
            ) from error
        site = self.site
        apply_rules(rules.host_rules(site.installation, site.subnet, site.policy, services))

    def host_rules_gone(self) -> bool:
        """Whether somebody has removed our table, as `nft flush ruleset` does."""
        return _nft("list", "table", "inet", rules.host_table(self.site.installation)).returncode != 0

    def remove_host_rules(self) -> None:
        table = rules.host_table(self.site.installation)
        apply_rules(f"add table inet {table}\ndelete table inet {table}\n")

    def existing(self) -> set[int]:
        """The numbers of the namespaces that are there, or were left half made."""
        prefix = rules.interface_prefix(self.site.installation)
        directory = self.site.directory
        words = [path.name for path in directory.iterdir()] if directory.exists() else []
        words += [name.removeprefix(prefix) for name in links.names(self._desk.netlink, prefix)]
        return {int(word) for word in words if word.isdecimal()}

    def overlapping(self) -> list[str]:
        """Routes of others into the subnet of VMs, in CIDR notation, but for single addresses (other VMs')."""
        found = links.foreign_routes(self._desk.netlink, "mg")
        return [text for text in found if not text.endswith("/32") and self.site.subnet.overlaps(text)]

    def make(self, index: int) -> None:
        """Make namespace `index`. Raises FileExistsError if the number or its addresses are in use, or OSError."""
        path, veth = self.site.path(index), self.site.veth(index)
        pair = self.site.subnet.pair(index)
        try:
            kernel.unshare()
            kernel.pin(path)
        except BaseException:
            kernel.enter(self._desk.host)
            raise
        try:
            try:
                kernel.write_sysctl("ipv4/ip_forward", "1")
                _disable_ipv6("all")
                apply_rules(rules.namespace_rules(pair, self.site.policy))
                os.close(kernel.open_tap(TAP, persist=True))
                kernel.write_sysctl(f"ipv4/conf/{TAP}/ignore_routes_with_linkdown", "1")
                links.wire_namespace(pair, veth, self._desk.host)
            finally:
                kernel.enter(self._desk.host)
            _disable_ipv6(veth)
            links.wire_host(self._desk.netlink, pair, veth)
        except NetlinkError as error:
            self.destroy(index)
            raise OSError(error.code, os.strerror(error.code), veth) from error
        except BaseException:
            self.destroy(index)
            raise

    def destroy(self, index: int) -> None:
        """Unmake a namespace, or what is left of one. A process in it keeps it, but with no way out."""
        veth = self.site.veth(index)
        address = links.peer(self._desk.netlink, veth)
        if address is not None:
            connections.cut(address)  # of programs of this machine, before they talk to nobody
        links.remove(self._desk.netlink, veth)
        kernel.unpin(self.site.path(index))
        if address is not None:
            _forget_connections(address)

    def whole(self, index: int) -> bool:
        """Whether the namespace is there with both its ends, and its address is of this subnet."""
        host = self.site.subnet.pair(index).host
        return kernel.pinned(self.site.path(index)) and links.has_address(
            self._desk.netlink, self.site.veth(index), host
        )

    def traffic(self, index: int) -> tuple[int, int]:
        """Bytes sent to the VM, and bytes that came from it."""
        came, went = links.traffic(self._desk.netlink, self.site.veth(index))
        return went, came


def _forget_connections(address: str) -> None:
    try:
        tracking.forget(address)
    except OSError as error:
        log.warning("the kernel does not forget the connections of %s: %s", address, error)


def _disable_ipv6(device: str) -> None:
    try:
        kernel.write_sysctl(f"ipv6/conf/{device}/disable_ipv6", "1")
    except FileNotFoundError:
        pass  # a kernel without IPv6


def apply_rules(text: str) -> None:
    """Apply rules of nftables in this thread's namespace, all or none. Raises NetworkUnavailable.

    nft reports what is wrong with the rules. It says nothing when the kernel's socket let it down, as on a machine
    where many change rules at once: that passes.
    """
    for patience in (0.05, 0.2, 0.8, None):
        done = _nft("-f", "-", stdin=text)
        if done.returncode == 0:
            return
        said = " | ".join(done.stderr.decode(errors="replace").strip().splitlines()[:3])
        if said or patience is None:
            raise NetworkUnavailable(f"nft refused the rules of a VM's network: {said or f'status {done.returncode}'}")
        time.sleep(patience)


def _nft(*words: str, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["nft", *words], input=stdin.encode(), capture_output=True, timeout=NFT_TIMEOUT, check=False
        )
    except FileNotFoundError as error:
        raise NetworkUnavailable("nft is missing: install the package nftables.") from error
    except subprocess.TimeoutExpired as error:
        raise NetworkUnavailable(f"nft did not end within {NFT_TIMEOUT:g} s.") from error
