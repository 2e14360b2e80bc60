"""What is on disk of a machine: enough for the next host program to go on with it.

One JSON file a VM, beside and not in the VM's own directory: that belongs to the hypervisor's user, who is not to be
trusted. Written at every change of state, atomically; a record without a VM, or a VM without a record, is an orphan.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mags.kit.files import write_atomic
from mags.protocol.messages import Attachment, Keep, Started, Value, VmSpec
from mags.protocol.states import VmState

log = logging.getLogger(__name__)


class JobRecord(Value):
    """A script that was given to the VM and whose end control has not heard of."""

    job_id: str
    process_id: int | None = None
    """None until the guest has it. In a VM's first script the only process there is, otherwise."""
    started: Started | None = None
    cancelled: bool = False


class StartupRecord(Value):
    """The startup command is to run, or runs. `base`: where its output begins in the streams of the job's log."""

    process_id: int | None = None
    base: tuple[int, int] = (0, 0)


class Record(Value):
    handle: str
    """Names the VM's directory, control group and record."""
    spec: VmSpec
    uid: int
    namespace: int | None = None
    state: VmState = VmState.RESTORING
    vm_id: str | None = None
    """None: it waits in the pool."""
    owner: str = ""
    keep: Keep = "job"
    name: str | None = None
    environment: dict[str, str] = {}
    startup_command: str | None = None
    idle_timeout_s: int | None = None
    no_sleep: bool = False
    attachment: Attachment | None = None
    jobs: dict[str, JobRecord] = {}
    home: str = ""
    """The job whose log has the startup command's output: the VM's first."""
    startup: StartupRecord | None = None
    """None: nothing to run, or it has ended well."""
    used_mb: int = 0
    """MiB of memory that it had for itself before it fell asleep last."""
    slept_at_ms: int = 0
    """When it fell asleep last, Unix time, for people; it is asleep if `state` says so."""
    slept_s: float = 0.0
    """For how long it has slept, as counted by host programs (`patience`)."""
    told_ms: int = 0
    """The moment of the last news of it: Unix time, but it never goes back, whatever the clock does, as control tells
    old news from new by it."""
    reason: str = ""
    """Why it failed."""
    unsaved: bool = False
    """Control was told that it has ended, but not all that its disk holds was saved then."""


class Records:
    """All records of a host."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def write(self, record: Record) -> None:
        """About 0.1 ms. OSError when the disk is full: the old record is still there."""
        write_atomic(self._path(record.handle), msgspec.json.encode(record))

    def remove(self, handle: str) -> None:
        """Harmless if repeated."""
        self._path(handle).unlink(missing_ok=True)

    def read_all(self) -> Iterator[Record]:
        """Every record that can be read. One that can't is dropped: its VM is an orphan then."""
        for path in sorted(self._directory.glob("*.json")):
            try:
                yield msgspec.json.decode(path.read_bytes(), type=Record)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                log.error("the record %s can't be read (%s): its VM will be ended", path, error)
                path.unlink(missing_ok=True)

    def _path(self, handle: str) -> Path:
        return self._directory / f"{handle}.json"
