"""A job's output passed on to our own stdout and stderr, and what its end means for our exit status."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from mags.cli.command import PLATFORM_FAILED, Session

if TYPE_CHECKING:
    from mags.sdk.frames import End


def follow(session: Session, request_id: str) -> End:
    """Pass everything on until the script has ended. The platform's own words go to stderr."""
    from mags.sdk.errors import TransferFailed
    from mags.sdk.frames import End

    write_out, write_err = session.console.writer(1), session.console.writer(2)
    for got in session.sender.output(request_id):
        if isinstance(got, End):
            return got
        (write_out if got.stream == 1 else write_err)(got.data)
    raise TransferFailed("The output ended before the script did. See `mags status`.")


def exit_status(session: Session, end: End) -> int:
    """The script's own, 125 when it has none because the platform failed."""
    if end.exit_code is not None:
        return end.exit_code & 0xFF
    if end.error:
        session.console.complain(end.error)
        return PLATFORM_FAILED
    return 0 if end.status == "completed" else PLATFORM_FAILED


def interrupts_as_exceptions() -> None:
    """SIGTERM and SIGHUP end a command as Ctrl-C does, so that it can tidy up."""

    def raise_interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), raise_interrupt)
