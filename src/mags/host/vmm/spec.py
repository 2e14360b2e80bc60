"""Values that describe a virtual machine, whatever runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class VmSpec:
    """The size of a VM and the image of its root file system. Equal specs share a template."""

    image: str
    vcpus: int = 1
    memory_mb: int = 512
    disk_gb: int = 8


@dataclass(frozen=True, slots=True)
class WorkDisk:
    """The writable disk of a VM where it is more than an empty one.

    base: raw image that the VM's own qcow2 overlay is laid over. It is only read, so many VMs may
        share it.
    size: bytes the guest sees; at least the size of the base.
    overlay: an existing qcow2 overlay to go on with (a VM that wakes or recovers); None makes a new one
        in the VM's directory.
    """

    base: Path
    size: int
    overlay: Path | None = None
