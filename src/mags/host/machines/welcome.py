"""What a guest is told before it runs anybody's code: everything that it believes wrongly since it was cloned."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface

from mags.host.guest import Jfs
from mags.host.network.addresses import GATEWAY_ADDRESS, GUEST_ADDRESS, GUEST_PREFIX
from mags.protocol.guest import Configure
from mags.protocol.guest.wishes import Network

HOSTNAME = "mags-vm"
ENTROPY_BYTES = 64

_GATEWAY = IPv4Address(GATEWAY_ADDRESS)
_NETWORK = Network(IPv4Interface(f"{GUEST_ADDRESS}/{GUEST_PREFIX}"), _GATEWAY, (_GATEWAY,))


def first(
    environment: Mapping[str, str] | None = None, *, jfs: Jfs | None = None, disk_bytes: int | None = None
) -> Configure:
    """For a fresh clone: clock, randomness, names, network, disks (the work disk's size), and what is to be on /jfs."""
    return Configure(
        clock_ns=time.time_ns(),
        entropy=os.urandom(ENTROPY_BYTES),
        hostname=HOSTNAME,
        network=_NETWORK,
        root=True,
        machine_id=os.urandom(16),
        grow=True,
        disk_bytes=disk_bytes,
        jfs=jfs,
        environment=environment or {},
    )


def taken(environment: Mapping[str, str] | None = None) -> Configure:
    """For one that waited, paused, in the pool: the clock. Its randomness is its own since it was cloned."""
    return Configure(clock_ns=time.time_ns(), environment=environment or {})


def again(environment: Mapping[str, str] | None = None) -> Configure:
    """For one that has stood still: clock and randomness."""
    return Configure(clock_ns=time.time_ns(), entropy=os.urandom(ENTROPY_BYTES), environment=environment or {})
