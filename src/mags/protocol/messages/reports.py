"""What a host says by itself: that it is there, and (JetStream, acknowledged) what has happened."""

from __future__ import annotations

import msgspec

from mags.protocol.messages.codec import Value
from mags.protocol.messages.vms import Started


class Presence(Value):
    """What a host says of itself every 2 s. A host silent for 15 s is suspect, for 30 s lost."""

    host_id: str
    machine_id: str
    version: str
    boot: str
    """Changes with every start of the host program."""
    accelerator: str
    cpus: int
    memory_mb: int
    free_memory_mb: int
    free_disk_gb: float
    load: float
    accepting: bool = True
    reason: str = ""
    """Why it takes no new VMs."""
    idle_vms: int = 0
    busy_vms: int = 0
    sleeping_vms: int = 0
    parked_vms: int = 0
    min_pool_size: int = 0
    max_pool_size: int = 0
    images: list[str] = []
    storage: str = ""
    """Empty: no synced workspaces here. "ok", or a sentence about the trouble."""
    local_retention_s: float | None = None
    """How long a sleeping VM is kept whose files are only on this host."""


class Heard(Value):
    """Control's answer to a presence: what was said is known. The host is not counted as lost before so many seconds
    have passed since it said it."""

    lost_after_s: float


class JobEnded(Value, tag="job_ended"):
    """A script ended, or will never: `error` says why in a sentence. Repeatable."""

    vm_id: str
    job_id: str
    exit_code: int | None = None
    error: str | None = None
    started: Started | None = None
    """How its start was answered: of a quick script the end may be recorded before the answer."""
    ended_at_ms: int = 0
    cpu_ms: int = 0


class VmChanged(Value, tag="vm_changed"):
    vm_id: str
    state: str
    reason: str = ""
    at_ms: int = 0


class WorkspaceSynced(Value, tag="workspace_synced"):
    vm_id: str
    workspace_id: str
    epoch: int
    generation: int
    bytes: int
    size_bytes: int
    at_ms: int


Event = JobEnded | VmChanged | WorkspaceSynced

_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def decode_event(data: bytes) -> Event:
    """msgspec.DecodeError when it is none."""
    return _events.decode(data)
