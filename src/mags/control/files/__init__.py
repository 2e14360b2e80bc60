"""Files uploaded for scripts."""

from __future__ import annotations

from mags.control.files.routes import router

__all__ = ["router"]
