"""Where things lie on the volume, and what is written there beside the images. No I/O.

    /blanks/ext4-{size}.img                  empty disks, each size once
    /workspaces/{workspace}/workspace.json   `Manifest`: whose it is, how large, its newest generation
                           /gen-{n:08}.img   a generation: immutable, complete, consistent as a file system
                           /draft-{vm}.{attempt}.img  the next generation of a VM while it is being written
                           /dropped-{n:08}.img  a generation on its way out (see `generations`)
                           /lease-{vm}.json  `Lease`: what a VM somewhere reads
                           /deleted          the workspace is deleted; what is still read lingers
                           /jfs/             the directory that guests see as /jfs
    /deleted/{workspace}.{attempt}/          a workspace on its way out: nobody reads it any more
    /scratch/{vm}/jfs/                       the /jfs of a VM whose changes are dropped

Numbers of generations only grow, and a number is used once: two hosts that both believe they own a workspace never
write the same file. Which generation is the current one is control's to say, not the volume's.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

GIB = 1 << 30
ROOT_INODE = 1
"""The number of JuiceFS's root directory; a directory that nothing is mounted on has another."""
IMAGE_MODE = 0o444
"""Hypervisors run as users of their own and read images by name."""
DIRECTORY_MODE = 0o711
"""...but nobody lists the names of workspaces."""

BLANKS, WORKSPACES, DELETED_WORKSPACES, SCRATCH = "blanks", "workspaces", "deleted", "scratch"
MANIFEST, DELETED, JFS = "workspace.json", "deleted", "jfs"
_GENERATION = re.compile(r"gen-(\d{8,})\.img")
_DROPPED = re.compile(r"dropped-(\d{8,})\.img")
_LEASE = re.compile(r"lease-([A-Za-z0-9-]+)\.json")
_DRAFT = re.compile(r"draft-([A-Za-z0-9-]+)\.[0-9a-f]+\.img")


class Manifest(msgspec.Struct, kw_only=True):
    """What a second installation needs to take a workspace over."""

    id: str
    owner: str = ""
    name: str = ""
    disk_gb: int
    generation: int = 0
    """The newest that was committed; a hint, kept by whoever committed it."""
    epoch: int = 0
    """The newest attachment that wrote here. An older one must stop."""
    image: str = ""
    """Name of the image that the disk belongs to."""
    synced_ms: int = 0
    size_bytes: int = 0
    """Bytes in use in the file system, as of that generation."""


class Lease(msgspec.Struct, kw_only=True):
    """What a VM needs as long as it lives, awake or asleep."""

    vm_id: str
    host_id: str
    epoch: int = 0
    base: int = 0
    """The generation under the VM's own overlay; 0: a blank."""
    blank_gb: int = 0
    """Size of that blank. The disk may have grown since: another blank would be another file system."""
    parent: int = 0
    """The newest generation of this VM: the next is made from it."""
    discard: bool = False
    pending: bool = False
    """What the VM starts from is still being copied: a fork's image, or its /jfs."""
    beat: int = 0
    """Counts up while the host lives; a lease that stands still for long is of a dead host."""


def generation_name(number: int) -> str:
    return f"gen-{number:08}.img"


def dropped_name(number: int) -> str:
    return f"dropped-{number:08}.img"


def draft_name(vm_id: str, attempt: str) -> str:
    """attempt: hexadecimal digits. Each name is used once: work that hung, and was given up, must not publish the
    draft of a later attempt."""
    return f"draft-{vm_id}.{attempt}.img"


def lease_name(vm_id: str) -> str:
    return f"lease-{vm_id}.json"


def generation_number(name: str) -> int | None:
    found = _GENERATION.fullmatch(name)
    return int(found.group(1)) if found else None


def dropped_number(name: str) -> int | None:
    found = _DROPPED.fullmatch(name)
    return int(found.group(1)) if found else None


def lease_vm(name: str) -> str | None:
    found = _LEASE.fullmatch(name)
    return found.group(1) if found else None


def draft_vm(name: str) -> str | None:
    found = _DRAFT.fullmatch(name)
    return found.group(1) if found else None


def blank_path(mount: Path, size: int) -> Path:
    return mount / BLANKS / f"ext4-{size}.img"
