"""What keeps the process of a VM apart from all others: a user of its own, and a control group."""

from __future__ import annotations

from mags.host.isolation.cgroups import Cgroup, Cgroups
from mags.host.isolation.uids import UidPool, UidsExhausted

__all__ = ["Cgroup", "Cgroups", "UidPool", "UidsExhausted"]
