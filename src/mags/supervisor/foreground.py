"""`mags up` as it is seen: the steps of the start, then a status line, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from mags.kit import logs
from mags.kit.children import ChildFailed
from mags.kit.process import CommandError
from mags.supervisor import status
from mags.supervisor.app import Supervisor, Trouble
from mags.supervisor.config import Settings
from mags.supervisor.lock import AlreadyUp
from mags.supervisor.ports import PortTaken
from mags.supervisor.shutdown import LEAVE_VMS
from mags.supervisor.storage import Changed

FAILURES = (Trouble, PortTaken, AlreadyUp, Changed, ChildFailed, CommandError, PermissionError, TimeoutError)
"""What `start` raises with a sentence for people."""
CLEAR = "\r\033[K"
"""To the begin of the terminal's line, which is empty then."""
REDRAW = 1.0
"""Seconds between two looks at the status."""


async def serve(settings: Settings, *, ready: Callable[[str], None], note: Callable[[str], None]) -> None:
    """Start, call `ready` with the API's URL, run until a signal. One of FAILURES when it can't.

    SIGTERM, SIGINT, SIGHUP put the VMs away; LEAVE_VMS leaves them for the next `mags up`.
    """
    supervisor = Supervisor(settings, note=note)
    ended, keep_vms = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)

    def leave_vms() -> None:
        keep_vms.set()
        ended.set()

    loop.add_signal_handler(LEAVE_VMS, leave_vms)
    if not await _unless(ended, supervisor.start()):
        return
    try:
        ready(supervisor.api_url)
        await _show_until(ended, supervisor)
        note("stopping")
        if not keep_vms.is_set():
            await supervisor.put_vms_away()
    finally:
        await supervisor.stop()
    if not keep_vms.is_set():
        await supervisor.clear()


async def put_away(settings: Settings, *, note: Callable[[str], None]) -> None:
    """Do for the VMs that a killed supervisor has left what its end would have done: a host program takes them over
    and puts them away. One of FAILURES when it can't."""
    supervisor = Supervisor(settings.model_copy(update={"programs": ("host",)}), note=note)
    await supervisor.start()
    try:
        await supervisor.put_vms_away()
    finally:
        await supervisor.stop()


async def _unless(ended: asyncio.Event, start: Coroutine[Any, Any, None]) -> bool:
    """Wait for the start, or cancel it at a signal. Whether it came to its end."""
    starting, stopping = asyncio.create_task(start), asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        starting.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
    if starting.cancelled():
        return False
    starting.result()  # also when the cancellation was lost on the way: what is up must be ended
    return True


async def _show_until(ended: asyncio.Event, supervisor: Supervisor) -> None:
    """On a terminal one line that stays current; in a log a line when something goes wrong or is well again."""
    interactive, shown = sys.stderr.isatty(), ""
    while not ended.is_set():
        line = supervisor.status_line(counts=interactive)
        if interactive:  # always: a line of log may have come between
            _show(f"{CLEAR}{status.fit(line, shutil.get_terminal_size().columns)}")
        elif line != shown:
            _show(line + "\n")
        shown = line
        try:
            async with asyncio.timeout(REDRAW):
                await ended.wait()
        except TimeoutError:
            pass
    if interactive:
        _show("\n")


def _show(text: str) -> None:
    """A terminal that was closed is no reason to leave VMs as they are."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def log_to_terminal() -> None:
    """Lines of log on stderr, where they don't mix with the status line."""
    logs.configure("up")
    if sys.stderr.isatty():
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter(f"{CLEAR}%(levelname)s: %(message)s"))


class Report:
    """Writes `KIND text` lines for `background.launch` at the other end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def say(self, kind: str, text: str) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, f"{kind} {' '.join(text.split())}\n".encode())
        except BrokenPipeError:
            self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
