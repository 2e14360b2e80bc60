"""Log lines of our programs: one line each, time, level, program, words; to stderr."""

from __future__ import annotations

import logging
import sys


def configure(program: str, *, level: str = "INFO") -> None:
    """Set the root logger up once per process. `level` is a name of the logging module."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s.%(msecs)03d %(levelname)s {program} %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore", "asyncssh", "uvicorn.access", "alembic", "nats"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
