"""Workspaces: list, delete, grow."""

from __future__ import annotations

from mags.control.workspaces.routes import router

__all__ = ["router"]
