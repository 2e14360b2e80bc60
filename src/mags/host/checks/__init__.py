"""Whether this machine can be a host, and what to do where it cannot: what `mags doctor` prints."""

from __future__ import annotations

from mags.host.checks.check import Check
from mags.host.checks.examination import Subject, examine

__all__ = ["Check", "Subject", "examine"]
