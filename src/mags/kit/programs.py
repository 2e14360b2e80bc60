"""Where the programs are that come as Python packages (nats-server, caddy, juicefs, weed): beside our interpreter."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from mags.kit.process import CommandMissing


def find(name: str) -> Path:
    """The program's path: first beside the running interpreter, then on PATH. CommandMissing if nowhere."""
    beside = Path(sys.executable).with_name(name)
    if beside.exists():
        return beside
    found = shutil.which(name)
    if found is None:
        raise CommandMissing(name)
    return Path(found)
