"""All checks, in the order in which a person would put things right."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from mags.host.checks import devices, machine, modules, networks, programs
from mags.host.checks.check import Check
from mags.host.checks.unsaved import unsaved


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about.

    data_dir: the installation's directory. subnet: the network of VMs (CIDR). ports: TCP addresses ("127.0.0.1:8080")
    that must be free -> what they are for. memory_mb: of the smallest VM that should run. memory_reserve_mb,
    disk_reserve_gb: what stays free. running: the installation runs here now.
    """

    data_dir: Path
    subnet: str = "10.231.0.0/16"
    ports: dict[str, str] = field(default_factory=dict)
    memory_mb: int = 512
    memory_reserve_mb: int = 1024
    disk_reserve_gb: float = 2.0
    running: bool = False


async def examine(subject: Subject) -> list[Check]:
    """Look at everything; takes about a second and changes nothing. No check raises."""
    state = subject.data_dir / "host"
    blocking = await asyncio.to_thread(
        lambda: [
            machine.python(),
            machine.root(),
            machine.memory(subject.memory_mb, subject.memory_reserve_mb, subject.running),
            machine.disk(subject.data_dir, subject.disk_reserve_gb),
            *unsaved(state),
            *(machine.port(address, use) for address, use in subject.ports.items()),
            devices.kvm(state),
            devices.tun(),
            devices.fuse(),
            devices.cgroups(),
            devices.users(),
            networks.forwarding(),
            networks.resolvers(),
        ]
    )
    qemu, tools = await programs.qemu(), programs.tools()
    trial = await networks.trial()  # which loads modules
    return [*blocking, qemu, *tools, trial, modules.modules(), *await networks.firewalls(subject.subnet)]
