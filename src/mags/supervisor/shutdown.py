"""`mags down`: the running supervisor asked to end, and waited for."""

from __future__ import annotations

import os
import select
import signal
import time

from mags.supervisor.layout import Layout
from mags.supervisor.lock import is_held, read_record

LEAVE_VMS = signal.SIGUSR1
"""Ends the supervisor and its programs, and leaves the VMs running for the next one."""
DEADLINE = 180.0
"""Seconds that everything has to end."""


class NotDown(Exception):
    """It did not end; the sentence says what to do."""


def shut_down(layout: Layout, *, keep_vms: bool = False, deadline: float = DEADLINE) -> bool:
    """Whether there was something to end. `keep_vms` leaves the VMs running for the next `mags up`."""
    if not is_held(layout.lock):
        return False
    until = time.monotonic() + deadline
    while (found := read_record(layout)) is None:
        # It is just starting or ending: it has no record then.
        if not is_held(layout.lock):
            return True
        if time.monotonic() > until:
            raise NotDown(f"Something holds {layout.lock}, but says not what it is. Look with `fuser {layout.lock}`.")
        time.sleep(0.1)
    pid = int(found["pid"])
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(process, LEAVE_VMS if keep_vms else signal.SIGTERM)
        if not select.select([process], [], [], max(0.0, until - time.monotonic()))[0]:
            raise NotDown(f"Mags (pid {pid}) did not end within {deadline:g} s. See {layout.log}.")
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise NotDown(f"Mags (pid {pid}) belongs to another user. Run `sudo mags down`.") from error
    finally:
        os.close(process)
    return True
