"""Marks that tests of several folders carry."""

from __future__ import annotations

import pytest

ONCE = pytest.mark.flaky(reruns=0)
"""For "exactly once" and "none lost": one failure is one too many, and no second try may hide it."""
