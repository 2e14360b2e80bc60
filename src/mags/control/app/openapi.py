"""The API's description, without a server."""

from __future__ import annotations

from typing import Any

from mags.control.app.api import application


def describe() -> dict[str, Any]:
    """The OpenAPI document, as served at /openapi.json."""
    return application().openapi()
