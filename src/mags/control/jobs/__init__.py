"""Jobs over HTTP: submit, look, follow, exec, files, stop."""

from __future__ import annotations

from mags.control.jobs.routes import router

__all__ = ["router"]
