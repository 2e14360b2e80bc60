"""Sandboxes: made, waited for, found."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mags.sdk import waiting
from mags.sdk.calls import jobs
from mags.sdk.errors import NotFound, WaitTimeout

if TYPE_CHECKING:
    from mags.cli.command import Session
    from mags.sdk.types import Job

UP_TIMEOUT = 300.0
"""Seconds that a VM may take to come up; the first of its kind builds a template."""


def make(session: Session, name: str, *, synced: bool = False, **options: Any) -> Job:
    """A sandbox of that name, up."""
    accepted = session.sender.send(jobs.new(name, synced=synced, **options))
    for warning in accepted.get("warnings") or []:
        session.console.note(f"warning: {warning}")
    return wait_up(session, accepted["request_id"])


def find(session: Session, name: str) -> Job | None:
    """The one that is there (up, asleep or on its way)."""
    try:
        job = session.sender.send(jobs.status(name))
    except NotFound:
        return None
    return job if job["status"] in ("pending", "running", "sleeping") else None


def wait_up(session: Session, request_id: str) -> Job:
    deadline = time.monotonic() + UP_TIMEOUT
    pause = None
    while True:
        job = session.sender.send(jobs.status(request_id))
        if job["status"] == "sleeping" or waiting.is_up(job):
            return job
        if time.monotonic() > deadline:
            raise WaitTimeout(f"It did not come up within {UP_TIMEOUT:g} s. See `mags status {request_id}`.")
        pause = waiting.next_poll(pause)
        time.sleep(pause)
