"""Parameters in paths."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

Reference = Annotated[
    str,
    Path(min_length=1, max_length=128, description="A request id, a job's name, or a workspace's name."),
]
