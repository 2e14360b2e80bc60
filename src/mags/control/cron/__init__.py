"""Scripts that run at given times."""

from __future__ import annotations

from mags.control.cron.routes import router

__all__ = ["router"]
