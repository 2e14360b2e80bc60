"""Fields that several bodies have, with what makes them valid."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from mags.protocol.ids import ENVIRONMENT_NAME, JOB_NAME, WORKSPACE_NAME

MAX_SCRIPT = 1 << 20
"""Bytes of a script."""
MAX_ENVIRONMENT = 256 << 10
"""Bytes of all names and values together."""


def _script(text: str) -> str:
    if len(text.encode()) > MAX_SCRIPT:
        raise ValueError("at most 1 MiB")
    return text


def _environment(environment: dict[str, str]) -> dict[str, str]:
    for name in environment:
        if not ENVIRONMENT_NAME.fullmatch(name):
            raise ValueError(f"{name[:64]!r} is no name of a variable")
    if sum(len(name) + len(value.encode()) for name, value in environment.items()) > MAX_ENVIRONMENT:
        raise ValueError(f"all of it together may have at most {MAX_ENVIRONMENT} bytes")
    return environment


Script = Annotated[str, Field(max_length=MAX_SCRIPT), AfterValidator(_script)]
Environment = Annotated[dict[str, str], AfterValidator(_environment)]
JobName = Annotated[str, Field(pattern=f"^{JOB_NAME.pattern}$")]
WorkspaceName = Annotated[str, Field(pattern=f"^{WORKSPACE_NAME.pattern}$")]
