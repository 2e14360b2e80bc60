"""Networks of VMs: one namespace each, made ahead, with the same addresses inside and rules that keep guests in."""

from __future__ import annotations

from mags.host.network.errors import NetworkError, NetworkExhausted, NetworkMissing, NetworkUnavailable
from mags.host.network.namespace import Namespace
from mags.host.network.pool import NamespacePool

__all__ = [
    "Namespace",
    "NamespacePool",
    "NetworkError",
    "NetworkExhausted",
    "NetworkMissing",
    "NetworkUnavailable",
]
