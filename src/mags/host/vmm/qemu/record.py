"""What a VM's directory remembers about it, so that another host program can find, check and adopt it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mags.host.vmm.spec import VmSpec
from mags.kit.files import write_atomic

NAME = "vm.json"


class Record(msgspec.Struct, frozen=True):
    """`pid` and `started` identify the process (process.start_time); `template` is the key it was cloned from."""

    spec: VmSpec
    uid: int
    pid: int
    started: int
    template: str
    accelerator: str
    version: str
    base: str = ""
    """Path of the raw file under the VM's own overlay."""


def save(directory: Path, record: Record) -> None:
    write_atomic(directory / NAME, msgspec.json.encode(record))


def forget(directory: Path) -> None:
    """A process is about to be started: until it has a record, it is found by its name."""
    (directory / NAME).unlink(missing_ok=True)


def load(directory: Path) -> Record | None:
    """None when there is none, or none that this version can read."""
    try:
        return msgspec.json.decode((directory / NAME).read_bytes(), type=Record)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
