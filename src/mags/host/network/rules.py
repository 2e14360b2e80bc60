"""The nftables rules, as text: in each VM's namespace, and in the host's.

In a namespace (the same for every VM but for two addresses): the guest's packets leave under the VM's address, those
that come for that address go to the guest, and those for the gateway go to the host. The guest reaches the internet
and nothing else; nothing but the guest sends. While the VM has no hypervisor (it sleeps), connections to it are reset.

In the host's namespace (a table of our own, named after the installation): the guests' packets leave under the host's
address; what comes from a guest for the host itself is refused but for the services it may use; other VMs and
forbidden ranges are refused a second time, as a namespace is all that stands between them. The ports of those
services are shut for the host's other neighbours. Chains of others (Docker,
ufw, firewalld) see the same packets too and may drop what we accept: the doctor looks for those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mags.host.network.addresses import (
    FORBIDDEN,
    GATEWAY_ADDRESS,
    GUEST_ADDRESS,
    LOOPBACK,
    TAP,
    UPLINK,
    Pair,
    Subnet,
)

CONNECTIONS_LIMIT = 4096
"""Connections a guest may have open at once. The host's table of connections is shared by all."""

REFUSE = "goto refuse"

REFUSE_CHAIN = """chain refuse {
        meta l4proto tcp reject with tcp reset
        reject with icmpx type admin-prohibited
    }"""
"""Refused and not dropped, so that a program in the guest hears at once. The kernel bounds the rate of ICMP to a
few a second; a reset always comes."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What guests may do on the network, beyond the internet.

    allowed: networks (CIDR) that guests reach although they are private.
    blocked: further networks that they do not reach.
    smtp: whether they may connect to port 25.
    """

    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    smtp: bool = False


@dataclass(frozen=True, slots=True)
class HostServices:
    """Ports of the gateway that lead to programs on the host: port the guest uses -> port on the host."""

    udp: Mapping[int, int] = field(default_factory=dict)
    tcp: Mapping[int, int] = field(default_factory=dict)


def _set(name: str, networks: Iterable[str]) -> str:
    elements = ", ".join(networks)
    filled = f"elements = {{ {elements} }}" if elements else ""
    return f"set {name} {{ type ipv4_addr; flags interval; auto-merge; {filled} }}"


def _outward(policy: Policy) -> str:
    """The rules for a packet from a guest to anywhere but the host. Both places have them."""
    smtp = "" if policy.smtp else f"tcp dport 25 {REFUSE}"
    return f"""
        meta nfproto ipv6 {REFUSE}
        ip daddr @blocked {REFUSE}
        ip daddr @allowed accept
        ip daddr @forbidden {REFUSE}
        {smtp}
        accept"""


def _sets(policy: Policy) -> str:
    return "\n    ".join(
        (_set("forbidden", FORBIDDEN), _set("allowed", policy.allowed), _set("blocked", policy.blocked))
    )


def namespace_rules(pair: Pair, policy: Policy) -> str:
    """For `nft -f` inside the namespace of one VM."""
    return f"""table inet mags {{
    {_sets(policy)}
    {REFUSE_CHAIN}
    chain prerouting {{
        type nat hook prerouting priority dstnat
        iifname "{UPLINK}" ip daddr {pair.address} dnat ip to {GUEST_ADDRESS}
        iifname "{TAP}" ip daddr {GATEWAY_ADDRESS} meta l4proto {{ tcp, udp }} dnat ip to {pair.host}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat
        oifname "{UPLINK}" snat ip to {pair.address}
    }}
    chain outward {{
        ct state established,related accept
        ip saddr != {GUEST_ADDRESS} drop
        ct state invalid drop
        ct count over {CONNECTIONS_LIMIT} {REFUSE}
        ct status dnat accept{_outward(policy)}
    }}
    chain forward_ {{
        type filter hook forward priority filter; policy drop
        iifname "{TAP}" oifname "{UPLINK}" jump outward
        iifname "{UPLINK}" oifname "{TAP}" ct state established,related accept
        iifname "{UPLINK}" oifname "{TAP}" ct status dnat accept
        iifname "{UPLINK}" oifname "{LOOPBACK}" ct status dnat meta l4proto tcp reject with tcp reset
    }}
    chain input_ {{
        type filter hook input priority filter; policy drop
        ct state established,related accept
        iifname "{TAP}" ip saddr {GUEST_ADDRESS} icmp type echo-request limit rate 50/second accept
    }}
    chain output_ {{
        type filter hook output priority filter; policy drop
        ct state established,related accept
    }}
}}
"""


def host_table(installation: str) -> str:
    """The name of our table in the host's namespace."""
    return f"mags_{installation}"


def interface_prefix(installation: str) -> str:
    """What the names of our interfaces in the host's namespace begin with."""
    return f"mg{installation}-"


def host_rules(installation: str, subnet: Subnet, policy: Policy, services: HostServices) -> str:
    """For `nft -f` in the host's namespace; replaces our table as it was, in one transaction."""
    table, ours = host_table(installation), f'"{interface_prefix(installation)}*"'
    redirects, accepted, shut = [], [], []
    for protocol, ports in (("udp", services.udp), ("tcp", services.tcp)):
        for asked, served in ports.items():
            redirects.append(f"fib daddr . iif type local {protocol} dport {asked} redirect to :{served}")
            accepted.append(f"ct status dnat {protocol} dport {served} accept")
            shut.append(f'iifname != "lo" {protocol} dport {served} drop')
    lines = "\n        "
    return f"""add table inet {table}
delete table inet {table}
table inet {table} {{
    {_sets(policy)}
    {REFUSE_CHAIN}
    chain services {{
        {lines.join(redirects)}
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat - 5
        iifname {ours} jump services
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat - 5
        ip saddr {subnet.network} oifname != {ours} masquerade
    }}
    chain to_host {{
        ct state established,related accept
        {lines.join(accepted)}
        {REFUSE}
    }}
    chain input_ {{
        type filter hook input priority filter - 5
        iifname {ours} goto to_host
        {lines.join(shut)}
    }}
    chain outward {{
        ct state established,related accept
        oifname {ours} {REFUSE}{_outward(policy)}
    }}
    chain forward_ {{
        type filter hook forward priority filter - 5
        iifname {ours} tcp flags syn tcp option maxseg size set rt mtu
        iifname {ours} jump outward
        oifname {ours} ct state established,related accept
        oifname {ours} drop
    }}
}}
"""
