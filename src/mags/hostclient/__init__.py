"""How control and edge speak to hosts: who is there, one request, one streaming session."""

from __future__ import annotations

from mags.hostclient.client import HostClient
from mags.hostclient.presence import Hosts, HostState, HostView
from mags.hostclient.session import Session

__all__ = ["HostClient", "HostState", "HostView", "Hosts", "Session"]
