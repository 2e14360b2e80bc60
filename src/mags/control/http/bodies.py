"""Bodies of requests (wrong types and values are refused, unknown fields ignored with a warning), and of answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

MAX_WARNINGS = 20


class Body(BaseModel):
    """Base of every JSON body. Strict: no number is made from a string."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, data: Any) -> Any:
        check_text(data)
        return data

    def warnings(self) -> list[str]:
        """One sentence for each field that nobody knows."""
        unknown = list(self.model_extra or {})
        return [f"The field {name[:64]!r} is unknown and was ignored." for name in unknown[:MAX_WARNINGS]]


class View(BaseModel):
    """Base of what is answered, as the OpenAPI document has it: these fields and no others. (What is answered is built
    as a dictionary; a test compares the two.)"""

    model_config = ConfigDict(extra="forbid")


class WarningView(View):
    """An answer to a body that may have had fields that nobody knows."""

    warnings: list[str] | None = None


def check_text(data: Any) -> None:
    """ValueError for text that no database and no process takes: with NUL, or with half of a surrogate pair."""
    if isinstance(data, str):
        if "\x00" in data:
            raise ValueError("text may not contain the character U+0000")
        try:
            data.encode()
        except UnicodeEncodeError:
            raise ValueError("text may not contain half a surrogate pair") from None
    elif isinstance(data, dict):
        for key, value in data.items():
            check_text(key)
            check_text(value)
    elif isinstance(data, list):
        for value in data:
            check_text(value)


def with_warnings(answer: dict[str, Any], body: Body) -> dict[str, Any]:
    """The answer, with `warnings` when there are some."""
    warnings = body.warnings()
    return {**answer, "warnings": warnings} if warnings else answer
