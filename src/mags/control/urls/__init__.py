"""Ways into VMs from outside: public URLs, SSH, aliases; and what edges ask about them."""

from __future__ import annotations

from mags.control.urls.access import router as access_router
from mags.control.urls.routes import router

__all__ = ["access_router", "router"]
