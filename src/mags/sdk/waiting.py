"""How the clients wait, and what they make of answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mags.sdk.errors import ServerFailed

if TYPE_CHECKING:
    from mags.sdk import types

FIRST_POLL, LAST_POLL = 0.02, 0.5
"""Seconds between two looks at a job that is not up yet; doubled each time."""


def next_poll(before: float | None) -> float:
    return FIRST_POLL if before is None else min(before * 2, LAST_POLL)


def is_up(job: types.Job) -> bool:
    """Whether its VM is there. ServerFailed when it never will be."""
    if job["status"] in ("completed", "error"):
        reason = job.get("error") or f"its script ended with status {job.get('exit_code')}"
        raise ServerFailed(f"Job {job['request_id']} ended before it was up: {reason}.")
    return job["status"] == "running" and bool(job.get("vm_id"))


def run_result(job: types.Job, lines: list[types.LogLine], end: Mapping[str, Any]) -> types.RunResult:
    code = end.get("exit_code")
    return {
        "request_id": job["request_id"],
        "status": job["status"],
        "exit_code": code if code is not None else job.get("exit_code"),
        "duration_ms": job.get("script_duration_ms"),
        "error": job.get("error"),
        "logs": lines,
    }


def exec_result(answer: types.ExecAnswer) -> types.ExecResult:
    """With `output`, the published client's name for stdout."""
    return {**answer, "output": answer.get("stdout", "")}
