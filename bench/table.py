"""One measured number as a row, and rows as a table or as JSON lines.

Each JSON line has `name, unit, n, median, p99, goal, ok, ratio, baseline`: `goal` is the most (or, with `at_least`, the
least) that the median may be, `ok` whether it is met (null without a goal), `ratio` median / median of the row named
`baseline` of the same run. Where the 99th percentile has a goal of its own, it has a row of its own (`tail`).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    unit: str
    n: int
    median: float
    p99: float
    goal: float | None = None
    ok: bool | None = None
    ratio: float | None = None
    baseline: str | None = None


def row(
    name: str,
    unit: str,
    samples: Sequence[float],
    *,
    goal: float | None = None,
    at_least: bool = False,
    baseline: Row | None = None,
) -> Row:
    """A row of samples; p99 is the sample at or above 99 % (the worst one below 100 samples)."""
    ordered = sorted(samples)
    if not ordered:
        raise ValueError(f"{name}: nothing was measured")
    median = statistics.median(ordered)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    ok = None if goal is None else (median >= goal if at_least else median <= goal)
    ratio = median / baseline.median if baseline is not None and baseline.median else None
    return Row(name, unit, len(ordered), median, p99, goal, ok, ratio, baseline.name if baseline else None)


def tail(of: Row, *, goal: float) -> Row:
    """The 99th percentile of a row as one of its own, with its goal."""
    return Row("  its p99", of.unit, of.n, of.p99, of.p99, goal, of.p99 <= goal)


def as_json(rows: Sequence[Row]) -> str:
    return "\n".join(json.dumps(asdict(one)) for one in rows)


def as_table(rows: Sequence[Row]) -> str:
    """A Markdown table, as the README shows it."""
    lines = ["| | n | median | p99 | goal | ok | ratio |", "|---|---|---|---|---|---|---|"]
    for one in rows:
        goal = "" if one.goal is None else f"{one.goal:g}"
        ok = "" if one.ok is None else ("yes" if one.ok else "**no**")
        ratio = "" if one.ratio is None else f"{one.ratio:.2f} x {one.baseline}"
        lines.append(
            f"| {one.name} | {one.n} | {_short(one.median)} {one.unit} | {_short(one.p99)} | {goal} | {ok} | {ratio} |"
        )
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
