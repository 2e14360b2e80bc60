"""`python -m mags.host`: the host program, set by the environment (MAGS_HOST_*; see `mags.host.config`).

Needs root. Ends with status 1 and one line of log where this machine can't be a host.
"""

from __future__ import annotations

import logging
import sys

import uvloop
from pydantic import ValidationError

from mags.host import app
from mags.host.config import Settings
from mags.host.machines.claim import NameTaken
from mags.host.network import NetworkError
from mags.host.vmm.driver import VmmError
from mags.kit import logs

log = logging.getLogger("mags.host")


def main() -> int:
    try:
        settings = Settings()
    except ValidationError as error:
        print(f"mags host: wrong settings: {error}", file=sys.stderr)
        return 2
    logs.configure(f"host/{settings.host_id}", level=settings.log_level)
    try:
        uvloop.run(app.run(settings))
    except NameTaken as error:
        log.error("this machine can't be a host: %s", error)
        return 1
    except (VmmError, NetworkError, OSError, TimeoutError) as error:
        log.error("this machine can't be a host now: %s: %s", type(error).__name__, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
