"""Bodies of answers: JSON, quickly, and every problem in the one form."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from mags.protocol.errors import Problem

_encoder = msgspec.json.Encoder()


class Json(Response):
    """A JSON answer, encoded by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return _encoder.encode(content)


def problem_answer(problem: Problem) -> Json:
    """The answer for a problem: `{"error", "code", "details"}`, its status, and the headers that belong to it."""
    headers: dict[str, str] = {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.status in (429, 503):
        headers["Retry-After"] = str(problem.details.get("retry_after", 1))
    return Json(problem.body(), status_code=problem.status, headers=headers)
