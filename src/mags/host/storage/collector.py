"""What nobody needs any more on a volume, found and removed by every host once in a while. Every call blocks.

- leases of dead hosts, which stand still for a day; with them go their drafts, and generations that they held
- what a crash has left half done: drafts, dropped generations, deleted workspaces; after a day also workspaces and
  blanks that were never finished
- the /jfs of VMs whose changes are dropped, when the VM has no lease
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from mags.host.storage import layout
from mags.host.storage.errors import StorageUnavailable
from mags.host.storage.generations import GONE, Generations, every, remove_tree
from mags.protocol.ids import is_id

log = logging.getLogger("mags.storage.collector")

LEASE_LIFE = 24 * 3600.0
"""Seconds that a lease may stand still, by our monotonic clock, until its host counts as dead: clocks may jump."""

Key = tuple[str, str]
"""A lease: workspace and VM. No VM: a directory of a workspace that was never finished. Or a directory and a file."""


class Collector:
    """ours: the VMs of this host, whose leases are never given up."""

    def __init__(self, mount: Path, ours: Callable[[], set[str]]) -> None:
        self._mount, self._ours = mount, ours
        self._seen: dict[Key, tuple[int, float]] = {}
        """The beat of each lease, and since when it is that."""

    def collect(self, now: float) -> None:
        """`now`: monotonic seconds."""
        # Read before the leases: a VM has its lease first, then its directory.
        scratch = [path for path in (self._mount / layout.SCRATCH).glob("*") if is_id(path.name)]
        standing: dict[Key, tuple[int, float]] = {}
        leased, whole = self._ours(), True
        for generations in every(self._mount):
            try:
                leased |= self._collect(generations, standing, now)
            except StorageUnavailable as error:
                log.error("workspace %s is left as it is: %s", generations.directory.name, error)
                whole = False
            except OSError as error:
                if error.errno not in GONE:
                    raise
                whole = False  # another host removes it
        for path in (self._mount / layout.BLANKS).glob("tmp*"):
            if self._still((layout.BLANKS, path.name), 0, standing, now):
                path.unlink(missing_ok=True)
        self._seen = standing
        for path in scratch:
            if whole and path.name not in leased:
                remove_tree(path)
        for path in (self._mount / layout.DELETED_WORKSPACES).glob("*"):
            remove_tree(path)

    def _collect(self, generations: Generations, standing: dict[Key, tuple[int, float]], now: float) -> set[str]:
        """Of one workspace; the VMs that have leases on it."""
        name, leases, ours = generations.directory.name, generations.leases(), self._ours()
        for vm_id, lease in list(leases.items()):
            if self._still((name, vm_id), lease.beat, standing, now) and vm_id not in ours:
                log.warning("the lease of VM %s (host %s) stood still for a day; ended", vm_id, lease.host_id)
                generations.end_lease(vm_id)
                del leases[vm_id]
        unfinished = not leases and generations.manifest() is None and self._still((name, ""), 0, standing, now)
        if generations.deleted or unfinished:
            generations.erase(self._mount / layout.DELETED_WORKSPACES)
        else:
            generations.sweep()
        return set(leases)

    def _still(self, key: Key, beat: int, standing: dict[Key, tuple[int, float]], now: float) -> bool:
        """Whether it has stood still for as long as only something dead does."""
        last, since = self._seen.get(key, (beat, now))
        standing[key] = (beat, since if last == beat else now)
        return now - standing[key][1] > LEASE_LIFE
