"""A process that is found again by whoever comes after us: a file names it, and never somebody else's.

The file holds {"pid", "started", "boot"}. A pid is given out anew; with the start time (in clock ticks,
proc_pid_stat(5)) and the boot of the kernel it means one process only.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mags.kit.files import write_atomic


def write(path: Path, pid: int) -> None:
    """Remember a living process of ours. Nothing is written for one that has just ended."""
    started = _started(pid)
    if started is not None:
        write_atomic(path, json.dumps({"pid": pid, "started": started, "boot": _boot()}).encode())


async def end(path: Path, *, grace: float) -> bool:
    """End the process that the file names, with SIGKILL after `grace` seconds, and remove the file.

    False when it is over already or the file can't be read. TimeoutError if even SIGKILL does not end it.
    """
    with _process(path) as descriptor:
        if descriptor is not None:
            try:
                await end_process(descriptor, grace=grace)
            except ProcessLookupError:
                pass
        path.unlink(missing_ok=True)
        return descriptor is not None


async def end_process(descriptor: int, *, grace: float) -> None:
    """SIGTERM to the process of a pidfd, SIGKILL after `grace` seconds (0: at once), and its end waited for.

    ProcessLookupError when it is over, TimeoutError if it does not end.
    """
    if grace > 0:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if await _ends(descriptor, grace):
            return
    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    if not await _ends(descriptor, KILL_S):
        raise TimeoutError("A process did not end, although it was killed.")


KILL_S = 30.0
"""Seconds that the kernel has to end a killed process."""


async def _ends(descriptor: int, seconds: float) -> bool:
    """Whether the process of a pidfd ends in that time: the descriptor becomes readable then (pidfd_open(2))."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)


@contextmanager
def _process(path: Path) -> Iterator[int | None]:
    """A pidfd of the process that the file names; None when that is no more."""
    try:
        found = json.loads(path.read_bytes())
        pid, identity = int(found["pid"]), (int(found["started"]), found["boot"])
        descriptor = os.pidfd_open(pid)
    except (OSError, ValueError, KeyError, TypeError):
        yield None
        return
    try:
        # Looked at when the descriptor holds the process fast: the number can't be given out between.
        yield descriptor if (_started(pid), _boot()) == identity else None
    finally:
        os.close(descriptor)


def _started(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
