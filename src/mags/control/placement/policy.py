"""Placement: the best of the hosts that can take a VM.

A host is out when it is not live, takes nothing, or lacks what the VM needs (storage for a synced workspace, an image
that only others have). Of the rest the least reserved wins: reserved memory by its own size, then load, then its name,
so that the same input always gives the same answer. The host has the last word: it may refuse, and the next is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One host. Sizes in MB."""

    host_id: str
    live: bool = True
    accepting: bool = True
    reason: str = ""
    """Why it takes nothing."""
    memory_mb: int = 1
    reserved_mb: int = 0
    load: float = 0.0
    """Load average per CPU."""
    images: Sequence[str] = ()
    storage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    memory_mb: int = 512
    image: str = "alpine"
    storage: bool = False
    exclude: frozenset[str] = frozenset()
    """Hosts that have just refused."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`host_id`, or None and the reason. `hopeless`: waiting a moment will not help (every host says no)."""

    host_id: str | None
    reason: str = ""
    hopeless: bool = False


def choose(candidates: Iterable[Candidate], need: Need) -> Choice:
    """The best host for the need."""
    known = list(candidates)
    if not known:
        return Choice(None, "No host has joined yet.", True)
    live = [host for host in known if host.live]
    if not live:
        return Choice(None, "No host has been heard of for a while.")
    accepting = [host for host in live if host.accepting]
    if not accepting:
        return Choice(None, live[0].reason or "No host takes new VMs now.", True)
    able = [host for host in accepting if host.storage or not need.storage]
    if not able:
        return Choice(None, "No host can keep synced workspaces now.")
    if any(need.image in host.images for host in able):
        able = [host for host in able if need.image in host.images]
    rest = [host for host in able if host.host_id not in need.exclude]
    if not rest:
        return Choice(None, "Every host is full.")
    best = min(rest, key=lambda host: (_reserved(host, need), host.load, host.host_id))
    return Choice(best.host_id)


def _reserved(host: Candidate, need: Need) -> float:
    return (host.reserved_mb + need.memory_mb) / max(1, host.memory_mb)
