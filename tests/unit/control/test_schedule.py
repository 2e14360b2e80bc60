"""Cron expressions and time zones."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.control.lifecycles.schedule import WORDS, check, next_after, zone
from mags.protocol.errors import Problem


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def following(expression: str, moment: str, timezone: str = "UTC") -> str:
    found = next_after(expression, timezone, ms(moment))
    assert found is not None
    return datetime.fromtimestamp(found / 1000, UTC).isoformat()


@pytest.mark.parametrize(
    ("expression", "moment", "expected"),
    [
        ("0 3 * * *", "2026-01-01T02:59:59+00:00", "2026-01-01T03:00:00+00:00"),
        ("0 3 * * *", "2026-01-01T03:00:00+00:00", "2026-01-02T03:00:00+00:00"),
        ("*/15 * * * *", "2026-01-01T00:01:00+00:00", "2026-01-01T00:15:00+00:00"),
        ("0 0 29 2 *", "2026-01-01T00:00:00+00:00", "2028-02-29T00:00:00+00:00"),
        ("0 0 * * mon", "2026-01-01T00:00:00+00:00", "2026-01-05T00:00:00+00:00"),
        ("@hourly", "2026-01-01T00:30:00+00:00", "2026-01-01T01:00:00+00:00"),
        ("@yearly", "2026-01-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"),
    ],
)
def test_the_next_time(expression: str, moment: str, expected: str) -> None:
    assert following(check(expression), moment) == expected


def test_a_time_that_summer_time_skips_comes_right_after_and_one_that_it_repeats_comes_once() -> None:
    assert following("30 2 * * *", "2026-03-29T00:00:00+00:00", "Europe/Berlin") == "2026-03-29T01:00:00+00:00"
    first = following("30 2 * * *", "2026-10-25T00:00:00+00:00", "Europe/Berlin")
    assert following("30 2 * * *", first, "Europe/Berlin") == "2026-10-26T01:30:00+00:00"


@pytest.mark.parametrize("word", sorted(WORDS))
def test_words_are_expressions(word: str) -> None:
    assert check(word.upper()) == word and next_after(word, "UTC", 0) is not None


@given(st.text(max_size=30))
def test_any_text_is_an_expression_or_a_problem(text: str) -> None:
    try:
        expression = check(text)
    except Problem as problem:
        assert problem.code == "invalid"
    else:
        assert next_after(expression, "UTC", ms("2026-01-01T00:00:00+00:00")) is not None


def test_a_zone_that_is_none_is_a_problem() -> None:
    for name in ("", "Nowhere", "/etc/passwd", "../x", "a\0b"):
        with pytest.raises(Problem):
            zone(name)
