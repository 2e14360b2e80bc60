"""One `mags up` for each data directory: a lock that dies with its holder, and a record of what runs.

run/up.json: {"pid", "api_url", "apps", "ssh", "nats", "host_id", "programs", "s3", "version", "started_at"}
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from mags.kit.files import write_atomic
from mags.supervisor.layout import Layout


class AlreadyUp(Exception):
    """Another `mags up` has this data directory."""


class Lock:
    """Held until `release`, or until the process dies."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            found = read_record(layout)
            where = f"pid {found['pid']}, {found['api_url']}" if found else "it is just starting or ending"
            raise AlreadyUp(
                f"Mags is up already for {layout.data} ({where}). Use it, stop it with `mags down`, "
                "or start another with --data-dir and other ports."
            ) from None

    def publish(self, record: dict[str, Any]) -> None:
        write_atomic(self._layout.record, json.dumps(record).encode(), mode=0o644)

    def release(self) -> None:
        self._layout.record.unlink(missing_ok=True)
        os.close(self._descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def read_record(layout: Layout) -> dict[str, Any] | None:
    """What runs; None when nothing does."""
    return last_record(layout) or None if is_held(layout.lock) else None


def last_record(layout: Layout) -> dict[str, Any]:
    """What runs, or ran when its supervisor was killed; empty after an orderly end."""
    try:
        found = json.loads(layout.record.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
