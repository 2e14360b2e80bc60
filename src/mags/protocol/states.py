"""The states of a VM and of a job, and the only ways between them.

A VM, owned by its driver task on the host:

    restoring -> ready -> running <-> sleeping
        |          |       |   ^         |
        |          |       v   |         |
        |          |      parked         |
        v          v       v             v
        +----------+--> stopping --> gone

  any -> failed (its hypervisor died, its guest broke the protocol)

`ready` is a VM that waits for its first script; `parked` one whose scripts have ended and that is kept for the next
run of its workspace.

A job, owned by control (`lifecycles.endings` writes the final states):

    pending -> running <-> sleeping
       |          |            |
       +----------+------------+--> completed | error
"""

from __future__ import annotations

from enum import StrEnum


class VmState(StrEnum):
    RESTORING = "restoring"
    READY = "ready"
    RUNNING = "running"
    PARKED = "parked"
    SLEEPING = "sleeping"
    STOPPING = "stopping"
    GONE = "gone"
    FAILED = "failed"


_V = VmState
VM_TRANSITIONS: dict[VmState, frozenset[VmState]] = {
    _V.RESTORING: frozenset({_V.READY, _V.RUNNING, _V.STOPPING, _V.FAILED}),
    _V.READY: frozenset({_V.RUNNING, _V.STOPPING, _V.FAILED}),
    _V.RUNNING: frozenset({_V.SLEEPING, _V.PARKED, _V.STOPPING, _V.FAILED}),
    _V.PARKED: frozenset({_V.RUNNING, _V.SLEEPING, _V.STOPPING, _V.FAILED}),
    _V.SLEEPING: frozenset({_V.RUNNING, _V.RESTORING, _V.STOPPING, _V.FAILED}),
    _V.STOPPING: frozenset({_V.GONE, _V.FAILED}),
    _V.GONE: frozenset(),
    _V.FAILED: frozenset(),
}


class JobStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SLEEPING = "sleeping"
    COMPLETED = "completed"
    ERROR = "error"


_J = JobStatus
FINAL_JOB_STATUSES = frozenset({_J.COMPLETED, _J.ERROR})
FINAL_VM_STATES = frozenset({_V.GONE, _V.FAILED})


def may(before: VmState, after: VmState) -> bool:
    """Whether a VM may go from one state to the other. Staying is always allowed."""
    return before == after or after in VM_TRANSITIONS[before]
