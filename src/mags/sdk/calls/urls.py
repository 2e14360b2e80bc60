"""Stable names for public URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mags.sdk.calls.call import Call, given, path_of

if TYPE_CHECKING:
    from mags.sdk import types


def url_alias_create(subdomain: str, workspace_id: str, domain: str | None = None) -> Call[types.Alias]:
    """Give a workspace a stable subdomain; it leads to the newest VM. `domain`: another than the server's own."""
    wish = given(subdomain=subdomain, workspace_id=workspace_id, domain=domain)
    return Call("POST", "/mags-url-aliases", json=wish, creates=True)


def url_alias_list() -> Call[types.Aliases]:
    """All aliases."""
    return Call("GET", "/mags-url-aliases")


def url_alias_delete(subdomain: str) -> Call[types.Done]:
    """Remove an alias."""
    return Call("DELETE", path_of("mags-url-aliases", subdomain))
