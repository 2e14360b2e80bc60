"""What every machine of a host works with."""

from __future__ import annotations

from dataclasses import dataclass

from mags.host.attachments import Attachments
from mags.host.config import Settings
from mags.host.machines.capacity import Capacity
from mags.host.machines.cells import Cells
from mags.host.machines.events import Events
from mags.host.machines.journal import Journal
from mags.host.machines.pool import Pool
from mags.host.machines.record import Records
from mags.host.machines.uploads import Uploads
from mags.hostclient import HostClient


@dataclass(frozen=True, slots=True)
class Parts:
    settings: Settings
    capacity: Capacity
    cells: Cells
    pool: Pool
    records: Records
    journal: Journal
    events: Events
    uploads: Uploads
    client: HostClient
    """To ask edges."""
    attachments: Attachments | None = None
    """None: this host keeps no synced workspaces."""
