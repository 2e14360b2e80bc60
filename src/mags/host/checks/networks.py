"""Whether VMs can have networks here, and whether somebody else's firewall stands in their way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from mags.host.checks.check import Check
from mags.host.checks.modules import LOAD_NETWORKS
from mags.host.network import NetworkError
from mags.host.network.rehearsal import rehearse
from mags.host.network.resolver import HostResolvers
from mags.kit.process import CommandError, run


async def trial() -> Check:
    """Makes a VM's network, with all rules, where nobody sees it."""
    try:
        await asyncio.to_thread(rehearse)
    except NetworkError as error:
        return Check("networks", False, str(error), f"Run as root; {LOAD_NETWORKS}.")
    except OSError as error:
        return Check("networks", False, f"{error}", "Run as root, on a kernel with network namespaces.")
    return Check("networks", True, "a VM's network can be made")


def forwarding(switch: Path = Path("/proc/sys/net/ipv4/ip_forward")) -> Check:
    if switch.read_text().strip() == "1":
        return Check("IP forwarding", True, "on")
    return Check("IP forwarding", True, "off; `mags up` turns it on (net.ipv4.ip_forward)")


def resolvers(file: Path = Path("/etc/resolv.conf")) -> Check:
    found = HostResolvers(file=file)()
    if found:
        return Check("DNS", True, f"VMs' questions go to {', '.join(found)}")
    return Check("DNS", None, f"no nameserver in {file}", "VMs cannot resolve names: add a nameserver.")


async def firewalls(subnet: str) -> list[Check]:
    """Chains of others that drop by default what passes through or comes in. subnet: the network of VMs."""
    try:
        listed = await run(["nft", "-j", "list", "chains"], timeout=30)
        chains = json.loads(listed.stdout).get("nftables", [])
    except (CommandError, ValueError) as error:
        return [Check("firewall", None, f"cannot be read: {error}", "Run as root, with nftables installed.")]
    found = [_firewall(chain, subnet) for chain in dropping(chains)]
    return found or [Check("firewall", True, "nothing stands in the way of VMs")]


def dropping(listed: list[dict[str, Any]]) -> list[dict[str, str]]:
    """From the answer of `nft -j list chains`: those, not ours, that drop by default or belong to firewalld."""
    found = []
    for entry in listed:
        chain = entry.get("chain", {})
        if chain.get("hook") not in ("forward", "input") or chain.get("table", "").startswith("mags_"):
            continue
        if chain.get("policy") == "drop" or (chain.get("table") == "firewalld" and chain.get("type") == "filter"):
            found.append({key: str(chain[key]) for key in ("family", "table", "name", "hook")})
    return found


def _firewall(chain: dict[str, str], subnet: str) -> Check:
    name = f"{chain['family']} {chain['table']} {chain['name']}"
    if chain["table"] == "firewalld":
        advice = f"firewall-cmd --permanent --zone=trusted --add-source={subnet} && firewall-cmd --reload"
    elif chain["hook"] == "forward":
        advice = (
            f"With Docker: iptables -I DOCKER-USER -s {subnet} -j ACCEPT; iptables -I DOCKER-USER -d {subnet} -j"
            f" ACCEPT. With ufw: ufw route allow from {subnet}"
        )
    else:
        advice = f"With ufw: ufw allow from {subnet} (for DNS and /jfs). Otherwise accept that source in this chain."
    return Check("firewall", None, f"the chain {name} may drop packets of VMs", advice)
