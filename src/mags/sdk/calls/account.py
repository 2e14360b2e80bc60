"""The account: tokens, SSH keys; and the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mags.sdk.calls.call import Call, given, path_of

if TYPE_CHECKING:
    from mags.sdk import types


def me() -> Call[types.Me]:
    """Who we are."""
    return Call("GET", "/me")


def health() -> Call[dict[str, Any]]:
    """Whether the server is well. Needs no valid token."""
    return Call("GET", "/health", timeout=10)


def list_tokens(*, page: int = 1, page_size: int | None = None) -> Call[types.Tokens]:
    """API tokens without their secrets, the oldest first. Without `page_size` all of them, 10,000 at most."""
    return Call("GET", "/tokens", query={"page": page, "page_size": page_size})


def create_token(name: str, *, expires_at: str | None = None, scopes: Sequence[str] | None = None) -> Call[types.Token]:
    """A new API token; `token` of the answer is shown this once. `expires_at`: ISO 8601."""
    wish = given(name=name, expires_at=expires_at, scopes=list(scopes) if scopes else None)
    return Call("POST", "/tokens", json=wish, creates=True)


def delete_token(token_id: str) -> Call[types.Done]:
    """Make a token void."""
    return Call("DELETE", path_of("tokens", token_id))


def list_ssh_keys() -> Call[dict[str, Any]]:
    """The SSH keys that open our sandboxes."""
    return Call("GET", "/ssh-keys")


def add_ssh_key(public_key: str, *, name: str | None = None) -> Call[dict[str, Any]]:
    """Add a public key (a line of authorized_keys)."""
    return Call("POST", "/ssh-keys", json=given(public_key=public_key, name=name), creates=True)


def delete_ssh_key(key_id: str) -> Call[types.Done]:
    """Remove an SSH key."""
    return Call("DELETE", path_of("ssh-keys", key_id))
