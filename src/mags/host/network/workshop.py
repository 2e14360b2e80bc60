"""Makes and unmakes namespaces, in one thread of its own.

The thread walks from namespace to namespace; the event loop's never leaves the host's. Nothing here is asynchronous:
the pool calls it through the executor that it owns. A namespace takes about 10 ms (see bench), most of it `nft`.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from mags.host.network import kernel, links, rules
from mags.host.network.addresses import TAP, Subnet
from mags.host.network.errors import NetworkUnavailable

NFT_TIMEOUT = 20.0
"""Seconds until a call of nft is given up."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the networks of one installation are.

    installation: its id, part of every name. directory: holds the namespaces' names. host: the host's namespace.
    """

    installation: str
    directory: Path
    host: Path
    subnet: Subnet
    policy: rules.Policy

    def path(self, index: int) -> Path:
        return self.directory / str(index)

    def veth(self, index: int) -> str:
        return f"{rules.interface_prefix(self.installation)}{index}"


class Workshop:
    """All work on namespaces. Every method but `thread` and `close` runs in its thread."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="network", initializer=self._begin)

    def _begin(self) -> None:
        self._host = os.open(self.site.host, os.O_RDONLY | os.O_CLOEXEC)
        kernel.enter(self._host)
        self._netlink: Any = IPRoute()

    def _end(self) -> None:
        self._netlink.close()
        os.close(self._host)

    def close(self) -> None:
        """End the thread, after what it was asked to do."""
        self.thread.submit(self._end)
        self.thread.shutdown()

    def apply_host_rules(self, services: rules.HostServices) -> None:
        """Let packets pass between VMs and the internet, by our rules. Can be repeated."""
        kernel.write_sysctl("ipv4/ip_forward", "1")
        site = self.site
        _nft(rules.host_rules(site.installation, site.subnet, site.policy, services))

    def remove_host_rules(self) -> None:
        table = rules.host_table(self.site.installation)
        _nft(f"add table inet {table}\ndelete table inet {table}\n")

    def existing(self) -> set[int]:
        """The numbers of the namespaces that are there, or were left half made."""
        prefix = rules.interface_prefix(self.site.installation)
        words = [path.name for path in self.site.directory.iterdir()]
        words += [name.removeprefix(prefix) for name in links.names(self._netlink, prefix)]
        return {int(word) for word in words if word.isdecimal()}

    def overlapping(self) -> list[str]:
        """Routes of others into the subnet of VMs, in CIDR notation, but for single addresses (other VMs')."""
        found = links.foreign_routes(self._netlink, "mg")
        return [text for text in found if not text.endswith("/32") and self.site.subnet.overlaps(text)]

    def make(self, index: int) -> None:
        """Make namespace `index`. Raises FileExistsError if the number or its addresses are in use."""
        path, veth = self.site.path(index), self.site.veth(index)
        pair = self.site.subnet.pair(index)
        try:
            kernel.unshare()
            kernel.pin(path)
        except BaseException:
            kernel.enter(self._host)
            raise
        try:
            try:
                kernel.write_sysctl("ipv4/ip_forward", "1")
                _disable_ipv6("all")
                _nft(rules.namespace_rules(pair, self.site.policy))
                os.close(kernel.open_tap(TAP, persist=True))
                links.wire_namespace(pair, veth, self._host)
            finally:
                kernel.enter(self._host)
            _disable_ipv6(veth)
            links.wire_host(self._netlink, pair, veth)
        except BaseException:
            self.destroy(index)
            raise

    def destroy(self, index: int) -> None:
        """Unmake a namespace, or what is left of one. A process in it keeps it, but with no way out."""
        links.remove(self._netlink, self.site.veth(index))
        kernel.unpin(self.site.path(index))

    def whole(self, index: int) -> bool:
        """Whether the namespace is there with both its ends."""
        path = self.site.path(index)
        return path.is_mount() and links.index_of(self._netlink, self.site.veth(index)) is not None

    def traffic(self, index: int) -> tuple[int, int]:
        """Bytes sent to the VM, and bytes that came from it."""
        came, went = links.traffic(self._netlink, self.site.veth(index))
        return went, came


def _disable_ipv6(device: str) -> None:
    try:
        kernel.write_sysctl(f"ipv6/conf/{device}/disable_ipv6", "1")
    except FileNotFoundError:
        pass  # a kernel without IPv6


def _nft(text: str) -> None:
    """Apply rules in this thread's namespace. Raises NetworkUnavailable."""
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=text.encode(), capture_output=True, timeout=NFT_TIMEOUT, check=False
        )
    except FileNotFoundError as error:
        raise NetworkUnavailable("nft is missing: install the package nftables.") from error
    except subprocess.TimeoutExpired as error:
        raise NetworkUnavailable(f"nft did not end within {NFT_TIMEOUT:g} s.") from error
    if done.returncode != 0:
        said = " | ".join(done.stderr.decode(errors="replace").strip().splitlines()[:3])
        raise NetworkUnavailable(f"nft refused the rules of a VM's network: {said}")
