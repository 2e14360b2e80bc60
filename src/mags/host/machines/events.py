"""What control must hear: published until JetStream has it, so also through an outage of NATS.

Whoever publishes waits, and keeps on disk what led to the event until then: after a crash it is published again,
under the same id, and control takes it once.
"""

from __future__ import annotations

import time

from nats.js.api import Header

from mags.host.machines.journal import Away, Journal
from mags.protocol import subjects
from mags.protocol.messages import Event, JobEnded, VmChanged, encode


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class Events:
    def __init__(self, journal: Journal, host_id: str) -> None:
        self._journal = journal
        self._subject = subjects.event(host_id)

    async def publish(self, event: Event) -> None:
        """Returns when it is stored."""
        headers = {Header.MSG_ID.value: event_id(event)}
        payload = encode(event)
        attempt = 0
        while True:
            try:
                await self._journal.append(self._subject, payload, headers)
                return
            except Away:
                await self._journal.wait(attempt, "an event")
                attempt += 1


def event_id(event: Event) -> str:
    """Equal for two of the same meaning."""
    match event:
        case JobEnded():
            return f"ended-{event.job_id}"
        case VmChanged():
            return f"vm-{event.vm_id}-{event.state}-{event.at_ms}"
        case _:
            return f"synced-{event.workspace_id}-{event.epoch}-{event.generation}"
