"""Which host gets a VM: a pure decision over what hosts say of themselves."""

from __future__ import annotations

from mags.control.placement.policy import Candidate, Choice, Need, choose

__all__ = ["Candidate", "Choice", "Need", "choose"]
