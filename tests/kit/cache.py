"""What takes long to make and is the same in all tests: images, the kernel, templates, and whether KVM works here.

It is at MAGS_TEST_CACHE, else in /var/tmp, and kept from session to session; several may use it at once.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

CACHE = Path(os.environ.get("MAGS_TEST_CACHE", "/var/tmp/mags-test-cache"))


def share(state: Path, cache: Path = CACHE) -> None:
    """Give a host program's state, which does not exist yet, the templates of all tests and the verdict about KVM."""
    common = cache / "vmm"
    (common / "templates").mkdir(parents=True, exist_ok=True)
    state.mkdir(parents=True)
    (state / "templates").symlink_to(common / "templates")
    if (common / "accelerator.json").exists():
        shutil.copy(common / "accelerator.json", state)
