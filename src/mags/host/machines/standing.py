"""How one VM stands: its state, in its record on disk and to control."""

from __future__ import annotations

import logging

from mags.host.machines.attendants import Attendants
from mags.host.machines.events import Events, now_ms
from mags.host.machines.record import Record, Records
from mags.protocol.messages import VmChanged, VmReport
from mags.protocol.states import VmState, may

log = logging.getLogger(__name__)


class Standing:
    """Changed by the machine's driver only."""

    def __init__(self, record: Record, records: Records, events: Events, attendants: Attendants) -> None:
        self._record, self._records, self._events, self._attendants = record, records, events, attendants

    def to(self, state: VmState) -> None:
        """Raises RuntimeError for a change that there is not (`protocol.states`)."""
        if not may(self._record.state, state):
            raise RuntimeError(f"a VM can't go from {self._record.state} to {state}")
        self._record.state = state

    def write(self) -> None:
        """A full disk must not end what runs: an old record only costs more to recover from."""
        try:
            self._records.write(self._record)
        except OSError as error:
            log.warning("the record of VM %s can't be written: %s", self._record.vm_id, error)

    def announce(self, state: VmState, reason: str = "") -> None:
        """Tell control, without waiting for it."""
        self._attendants.spawn(self._publish(state, reason or self._record.reason, self._moment()), "tell")

    async def publish(self, state: VmState, reason: str) -> None:
        """Tell control; returns when the news is safe."""
        await self._publish(state, reason, self._moment())

    async def _publish(self, state: VmState, reason: str, at_ms: int) -> None:
        await self._events.publish(
            VmChanged(vm_id=self._record.vm_id or "", state=state.value, reason=reason, at_ms=at_ms)
        )

    def _moment(self) -> int:
        """Now, but later than all news before: news may overtake each other, and clocks be set back."""
        self._record.told_ms = max(now_ms(), self._record.told_ms + 1)
        self.write()
        return self._record.told_ms

    def report(self) -> VmReport:
        """What control gets when it asks what this host has."""
        record = self._record
        attachment = record.attachment
        return VmReport(
            vm_id=record.vm_id or "",
            state=record.state.value,
            owner=record.owner,
            jobs=list(record.jobs),
            memory_mb=record.spec.memory_mb,
            epoch=attachment.epoch if attachment else None,
            workspace_id=attachment.workspace_id if attachment else None,
            keep=record.keep,
        )
