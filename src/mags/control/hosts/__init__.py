"""Hosts and their pools, as users may see them; health."""

from __future__ import annotations

from mags.control.hosts.routes import router

__all__ = ["router"]
