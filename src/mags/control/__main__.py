"""`python -m mags.control`: the API server, told by the environment (MAGS_CONTROL_*)."""

from __future__ import annotations

import sys

import uvloop
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from mags.control.app.program import run
from mags.control.config import Settings
from mags.kit import logs


def main() -> int:
    try:
        settings = Settings()
    except ValidationError as error:
        for one in error.errors():
            name = "_".join(str(part) for part in one["loc"]).upper()
            print(f"MAGS_CONTROL_{name}: {one['msg']}", file=sys.stderr)
        return 2
    logs.configure("control", level=settings.log_level)
    try:
        uvloop.run(run(settings))
    except TimeoutError:
        print("The NATS server (MAGS_CONTROL_NATS_URL) does not answer. Is it up?", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        print(f"The database (MAGS_CONTROL_DATABASE_URL) can't be used: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
