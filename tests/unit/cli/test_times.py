from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mags.cli.times import duration, since, size

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(("milliseconds", "text"), [
    (None, None), (0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (59_900, "59.9 s"), (60_000, "1 min"),
    (312_000, "5 min 12 s"), (3_600_000, "1 h"), (25_380_000, "7 h 3 min"), (12 * 86_400_000, "12 days"),
])  # fmt: skip
def test_durations(milliseconds: float | None, text: str | None) -> None:
    assert duration(milliseconds) == text


@pytest.mark.parametrize(("time", "text"), [
    (None, None), ("2026-01-31T12:00:00.500Z", "now"), ("2026-01-31T11:59:18.000Z", "42 s ago"),
    ("2026-01-31T13:00:00.000Z", "in 1 h"), ("2026-01-01T12:00:00.000Z", "30 days ago"), ("soon", "soon"),
])  # fmt: skip
def test_moments(time: str | None, text: str | None) -> None:
    assert since(time, NOON) == text


@pytest.mark.parametrize(("value", "text"), [
    (None, None), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KB"), (123456789, "117.7 MB"), (5 << 30, "5.0 GB"),
    (3 << 40, "3.0 TB"),
])  # fmt: skip
def test_sizes(value: int | None, text: str | None) -> None:
    assert size(value) == text
