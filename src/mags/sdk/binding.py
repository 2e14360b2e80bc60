"""A request of `calls` made into a method of a client: same arguments, same documentation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def document(method: Callable[..., Any], build: Callable[..., Any]) -> None:
    """Give the method the name, documentation and signature (with `self` in front) of what it sends."""
    signature = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [own, *signature.parameters.values()]
    answer = str(signature.return_annotation).removeprefix("Call[").removesuffix("]")
    method.__name__, method.__doc__ = build.__name__, build.__doc__
    method.__signature__ = signature.replace(parameters=parameters, return_annotation=answer)  # type: ignore[attr-defined]
