"""A browser of this machine."""

from __future__ import annotations

import shutil

import pytest


def program() -> str:
    """Its path. Skips the test where there is none: Ubuntu has Chromium as a snap only, which is no use here."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no browser on this machine: install chromium or google-chrome")
    return found
