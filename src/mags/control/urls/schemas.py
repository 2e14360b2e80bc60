"""What requests about URLs and SSH look like."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from mags.control.http import Body, View, WarningView
from mags.control.http.fields import WorkspaceName
from mags.protocol.ids import SUBDOMAIN

RESERVED = frozenset(
    """admin administrator api app apps auth autoconfig autodiscover billing blog cdn console control dashboard dev dns
    docs edge email ftp git help host hostmaster imap internal localhost login mags mail metrics mx news ns ns1 ns2
    postmaster pop registry root router security server smtp ssh ssl staging static status store support sync system
    test tls vpn webmail webmaster wildcard wpad ws www""".split()  # noqa: SIM905
)
"""Names that would pass for the operator's own, or that programs look up by themselves."""
_PORT_FIRST = re.compile(r"\d+-")


class AccessRequest(Body):
    """POST /mags-jobs/{id}/access."""

    port: int = Field(8080, ge=1, le=65535, description="22: SSH. Any other: a public URL.")
    private: bool | None = Field(None, description="Only for signed links and your tokens; null leaves it as it is.")
    public_key: str | None = Field(
        None,
        max_length=1000,
        description="SSH: of a key from an earlier answer. While that opens the sandbox, no other is made.",
    )


class AliasRequest(Body):
    """POST /mags-url-aliases."""

    subdomain: Annotated[str, Field(min_length=1, max_length=63)]
    workspace_id: WorkspaceName
    domain: str | None = Field(None, max_length=253)

    @field_validator("subdomain")
    @classmethod
    def _label(cls, value: str) -> str:
        value = value.lower()
        if not SUBDOMAIN.fullmatch(value):
            raise ValueError("use letters, digits and hyphens, at most 63, no hyphen at an end")
        if _PORT_FIRST.match(value):
            raise ValueError("digits and a hyphen first mean a port; choose another name")
        if value.startswith("xn--") or value in RESERVED:
            raise ValueError("this name is reserved; choose another one")
        return value


class AliasView(WarningView):
    id: str
    subdomain: str
    url: str
    workspace_id: str
    created_at: str


class AliasList(View):
    aliases: list[AliasView]
    total: int


class AliasRemoved(View):
    success: bool
    subdomain: str


class UrlAccess(WarningView):
    """A port that the web can reach; `signed_url` opens a private one, `alias_urls` (signed too) are the same under the
    aliases that lead to it now."""

    success: bool
    url: str
    subdomain: str
    port: int
    private: bool
    signed_url: str | None = None
    alias_urls: list[str]


class SshAccess(WarningView):
    """The private key is in this answer and nowhere else; null: the caller's `public_key` is good."""

    success: bool
    ssh_host: str
    ssh_port: int
    ssh_user: str
    ssh_private_key: str | None
    ssh_host_key: str


class AccessClosed(View):
    success: bool
    port: int
