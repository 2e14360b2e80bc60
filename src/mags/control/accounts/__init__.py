"""Who one is, tokens, SSH keys, use."""

from __future__ import annotations

from mags.control.accounts.routes import router
from mags.control.accounts.usage import router as usage_router

__all__ = ["router", "usage_router"]
