"""Which public name a request is for. Pure; everything here comes from strangers."""

from __future__ import annotations

import ipaddress
import re

from mags.protocol.ids import SUBDOMAIN

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
LONGEST_HOST = 253


def clean(header: str) -> str:
    """The host of a Host header: lower case, without port and last dot. ValueError when it is no host."""
    text = header.strip().lower()
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not re.fullmatch(r":[0-9]{1,5}", rest)):
            raise ValueError("not a host")
        return str(ipaddress.IPv6Address(address))
    text, colon, port = text.partition(":")
    if colon and not re.fullmatch(r"[0-9]{0,5}", port):
        raise ValueError("not a host")
    text = text.removesuffix(".")
    if len(text) > LONGEST_HOST or not _HOST.fullmatch(text):
        raise ValueError("not a host")
    return text


def is_ours(host: str, apps_domain: str) -> bool:
    """Whether a (clean) host is the edge itself: the apps domain, an address, localhost."""
    if host in (apps_domain, "localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def split(host: str, apps_domain: str) -> tuple[str, str | None] | None:
    """("shop", None) for a name below the apps domain, ("shop", "example.com") for another; None when it can be no
    public name: below the apps domain they have exactly one label."""
    name, dot, rest = host.partition(".")
    if not dot or not SUBDOMAIN.fullmatch(name):
        return None
    if rest == apps_domain:
        return name, None
    if host.endswith(f".{apps_domain}"):
        return None
    return name, rest
