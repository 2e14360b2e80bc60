"""The shapes of the monitor's answers that are looked into (QEMU, qapi/*.json). Fields that nobody reads are left out.

An answer of another shape ends the monitor's connection (`Qmp.ask`), and with it the VM: QEMU is not trusted more than
the guest that it runs.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Size = Annotated[int, Meta(ge=0, le=1 << 46)]
"""Bytes of a disk, at most 64 TiB."""


class Status(msgspec.Struct):
    """`query-status`."""

    status: str


class FdSet(msgspec.Struct, rename={"id": "fdset-id"}):
    """`add-fd`."""

    id: int


class Chardev(msgspec.Struct):
    """One of `query-chardev`."""

    label: str
    filename: str


class Job(msgspec.Struct, rename="kebab"):
    """One of `query-jobs`."""

    id: str
    status: str
    total_progress: Size = 0
    error: str | None = None


class Bitmap(msgspec.Struct):
    name: str = ""
    count: Size = 0


class Image(msgspec.Struct, rename="kebab"):
    virtual_size: Size


class Node(msgspec.Struct, rename="kebab"):
    """One of `query-named-block-nodes`."""

    node_name: str
    image: Image
    dirty_bitmaps: list[Bitmap] = []
