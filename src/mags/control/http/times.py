"""Times as answers show them."""

from __future__ import annotations

from datetime import UTC, datetime

from mags.kit.clock import iso


def moment(ms: int | None) -> str | None:
    """Unix milliseconds as ISO 8601."""
    return None if ms is None else iso(datetime.fromtimestamp(ms / 1000, UTC))
