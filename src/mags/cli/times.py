"""Times and sizes for people. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def duration(milliseconds: float | None) -> str | None:
    """`12 ms`, `3.4 s`, `5 min 12 s`, `7 h 3 min`, `12 days`; None stays None."""
    if milliseconds is None:
        return None
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"


def since(time: str | None, now: datetime | None = None) -> str | None:
    """How long ago an ISO 8601 time was; of a time to come, how long until then."""
    if time is None:
        return None
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return time
    gone = ((now or datetime.now(UTC)) - moment).total_seconds() * 1000
    if abs(gone) < 1000:
        return "now"
    words = (duration(abs(gone)) or "").replace(".0 s", " s")
    return f"{words} ago" if gone > 0 else f"in {words}"


def size(bytes_: float | None) -> str | None:
    """`512 B`, `1.5 MB`, `2.0 GB` (powers of 1024); None stays None."""
    if bytes_ is None:
        return None
    value = float(bytes_)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"
