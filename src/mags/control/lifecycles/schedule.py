"""Cron expressions: five fields or a word like @hourly, in a time zone. Pure.

Fields and words as in crontab(5); times that summer time skips or repeats follow Debian's cron: a job in the skipped
hour runs right after it, one in the repeated hour runs once. Read by the library cronsim.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from mags.control import errors

WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_ANY = "*"


def check(expression: str) -> str:
    """The expression, tidied; Problem(invalid) that names the field that is wrong."""
    text = " ".join(expression.split())
    if text.startswith("@"):
        if text.lower() not in WORDS:
            raise errors.invalid("cron_expression", f"{text[:32]!r} is not one of {', '.join(WORDS)}.")
        return text.lower()
    parts = text.split(" ")
    if len(parts) != len(FIELDS):
        raise errors.invalid(
            "cron_expression", f"It has {len(parts) if text else 0} fields; give five: {', '.join(FIELDS)}."
        )
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for index, part in enumerate(parts):
        alone = [_ANY] * len(FIELDS)
        alone[index] = part
        try:
            CronSim(" ".join(alone), start)
        except CronSimError as error:
            raise errors.invalid("cron_expression", f"The field {FIELDS[index]!r} is wrong: {part[:32]!r}.") from error
    try:
        CronSim(text, start)
    except CronSimError as error:
        raise errors.invalid("cron_expression", f"{text[:64]!r} never comes, or can't be read.") from error
    return text


@lru_cache(maxsize=256)
def zone(name: str) -> ZoneInfo:
    """A time zone of the IANA database; Problem(invalid) when there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise errors.invalid(
            "timezone", f"There is no time zone {name[:64]!r}; one is called 'Europe/Berlin'."
        ) from error


def next_after(expression: str, timezone: str, moment_ms: int) -> int | None:
    """The next time after `moment_ms` in Unix milliseconds; None when none comes (within 50 years)."""
    fields = WORDS.get(expression, expression)
    local = datetime.fromtimestamp(moment_ms / 1000, tz=zone(timezone))
    try:
        return int(next(CronSim(fields, local)).timestamp() * 1000)
    except (StopIteration, CronSimError):
        return None
