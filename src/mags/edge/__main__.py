"""`python -m mags.edge`: settings from the environment (`MAGS_EDGE_*`), SIGTERM ends it cleanly."""

from __future__ import annotations

import resource
import sys

import uvloop
from pydantic import ValidationError

from mags.edge.app import run
from mags.edge.config import Settings
from mags.kit import logs
from mags.kit.children import ChildFailed


def main() -> int:
    try:
        settings = Settings()
    except ValidationError as error:
        for one in error.errors():
            name = "_".join(["MAGS_EDGE", *(str(part).upper() for part in one["loc"])])
            print(f"mags edge: {name}: {one['msg']}", file=sys.stderr)
        return 2
    # Each connection takes a socket to Caddy and one to the VM.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logs.configure("edge", level=settings.log_level)
    try:
        uvloop.run(run(settings))
    except (ChildFailed, OSError, TimeoutError) as error:
        print(f"mags edge: {error or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
