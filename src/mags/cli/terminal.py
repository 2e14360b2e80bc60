"""Our terminal and signals, joined to a process that runs in a VM.

The main thread passes output on; one thread feeds: stdin, changes of the window's size, and signals, which the handlers
only note in a pipe (a handler may not touch the connection that it interrupts).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mags.cli.command import MISUSED, Refused

if TYPE_CHECKING:
    from mags.cli.console import Console
    from mags.sdk.process import Process

READ = 1 << 16
FORWARDED = {"SIGINT": "INT", "SIGTERM": "TERM", "SIGHUP": "HUP", "SIGQUIT": "QUIT"}

LEAVING = (signal.SIGINT, signal.SIGTERM)
TIMES, WITHIN_S = 3, 2.0
"""So often, within so many seconds, it means ourselves: the VM may stand still, or its host be away."""


def window_size() -> tuple[int, int]:
    """(rows, columns) of our terminal. One that nobody has told its size (`expect`, a container's) has none."""
    columns, rows = os.get_terminal_size(sys.stdin.fileno())
    return rows or 24, columns or 80


def check_terminal() -> None:
    if os.name != "posix":
        raise Refused("A terminal (-t) works on Linux and macOS only. Leave -t out.", MISUSED)
    if not sys.stdin.isatty():
        raise Refused("-t needs a terminal, and stdin is none. Leave -t out.", MISUSED)


def converse(process: Process, console: Console, *, stdin: bool, terminal: bool) -> int:
    """Pass everything on until the process has ended; its exit status."""
    write_out, write_err = console.writer(1), console.writer(2)
    with contextlib.ExitStack() as stack:
        if os.name == "posix":
            if terminal and stdin:  # where keys go nowhere else, Ctrl-C still has to be a signal
                stack.enter_context(_raw_mode())
            stack.enter_context(_feeding(process, stdin=stdin, terminal=terminal))
        else:
            threading.Thread(target=_feed_plainly, args=(process, stdin), name="mags-stdin", daemon=True).start()
        for chunk in process:
            (write_out if chunk.stream == 1 else write_err)(chunk.data)
    assert process.exit_code is not None
    return process.exit_code & 0xFF


@contextlib.contextmanager
def _raw_mode() -> Iterator[None]:
    """Every key goes to the other side. The terminal is as it was afterwards."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _feeding(process: Process, *, stdin: bool, terminal: bool) -> Iterator[None]:
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)

    impatience: dict[int, deque[float]] = {}

    def noted(number: int, frame: object) -> None:
        if number in LEAVING:
            times = impatience.setdefault(number, deque(maxlen=TIMES))
            times.append(time.monotonic())
            if len(times) == TIMES and times[-1] - times[0] < WITHIN_S:
                raise KeyboardInterrupt
        with contextlib.suppress(BlockingIOError):
            os.write(wake_write, bytes([number]))

    names = [*FORWARDED, "SIGWINCH"] if terminal else [*FORWARDED]
    before = {number: signal.signal(number, noted) for number in (getattr(signal, name) for name in names)}
    thread = threading.Thread(target=_feed, args=(process, wake_read, stdin), name="mags-stdin", daemon=True)
    thread.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake_write)  # ends the thread, unless it is blocked in a write to a process that is gone
        thread.join(timeout=1)
        if not thread.is_alive():
            os.close(wake_read)


def _feed(process: Process, wake: int, stdin: bool) -> None:
    import select

    source = sys.stdin.fileno() if stdin else None
    if source is None:
        process.close_stdin()
    while True:
        watched = [wake] if source is None else [wake, source]
        ready = select.select(watched, [], [])[0]
        if wake in ready:
            numbers = os.read(wake, 64)
            if not numbers:
                return
            for number in numbers:
                _pass_on(process, signal.Signals(number))
        if source is not None and source in ready:
            data = os.read(source, READ)
            if data:
                process.write(data)
            else:
                source = None
                process.close_stdin()


def _feed_plainly(process: Process, stdin: bool) -> None:
    """Where no pipe can be waited for (Windows): stdin alone."""
    while stdin and (data := os.read(sys.stdin.fileno(), READ)):
        process.write(data)
    process.close_stdin()


def _pass_on(process: Process, number: signal.Signals) -> None:
    if number.name == "SIGWINCH":
        with contextlib.suppress(OSError):
            process.resize(*window_size())
    else:
        process.signal(FORWARDED[number.name])
