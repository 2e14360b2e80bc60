"""Names under which the world reaches a VM."""

from __future__ import annotations

from mags.control.config import Settings


def public_url(settings: Settings, subdomain: str, *, port: int | None = None) -> str:
    """The URL of a subdomain; with `port` of another port than the one that the bare name leads to."""
    label = f"{port}-{subdomain}" if port is not None else subdomain
    default = 443 if settings.apps_scheme == "https" else 80
    suffix = "" if settings.apps_port in (None, default) else f":{settings.apps_port}"
    return f"{settings.apps_scheme}://{label}.{settings.apps_domain}{suffix}"
