"""What requests about accounts look like."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from mags.control.http import Body, View, WarningView
from mags.control.records.accounts import SCOPES
from mags.kit.clock import from_iso

Label = Annotated[str, Field(min_length=1, max_length=100)]


class TokenRequest(Body):
    """POST /tokens."""

    name: Label = "token"
    expires_at: str | None = Field(None, max_length=64, description="ISO 8601; left out: as your own token's.")
    scopes: list[str] | None = Field(None, max_length=8, description=f"Of {', '.join(SCOPES)}; all if left out.")

    @field_validator("expires_at")
    @classmethod
    def _time(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                from_iso(value).timestamp()
            except (ValueError, OverflowError):
                raise ValueError("give an ISO 8601 time, such as 2027-01-31T12:00:00Z") from None
        return value

    @field_validator("scopes")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        for scope in value or []:
            if scope not in SCOPES:
                raise ValueError(f"{scope[:32]!r} is not one of {', '.join(SCOPES)}")
        return value


class SshKeyRequest(Body):
    """POST /ssh-keys."""

    public_key: str = Field(min_length=1, max_length=16 << 10, description="One line of authorized_keys.")
    name: Label | None = None


class Me(View):
    user_id: str
    name: str
    scopes: list[str]
    max_vms: int
    max_vcpus: int
    max_memory_mb: int
    vms: int


class TokenView(View):
    id: str
    name: str
    prefix: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class NewToken(TokenView, WarningView):
    token: str | None
    """None where the request is repeated: it is not kept."""


class TokenList(View):
    tokens: list[TokenView]
    total: int
    page: int
    page_size: int


class SshKeyView(WarningView):
    id: str
    name: str
    fingerprint: str
    public_key: str
    created_at: str


class SshKeyList(View):
    ssh_keys: list[SshKeyView]
    total: int


class Removed(View):
    success: bool
    id: str
