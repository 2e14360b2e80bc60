"""A session of tests (or measurements) says that it lives, and takes away what dead ones have left.

    SESSIONS/ID    {"places": [directory, ...]}, locked (flock) while the session lives

Whatever a session starts inherits MAGS_TEST_SESSION=ID, and keeps its files in its places.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mags.host import remains
from mags.host.network.claims import ID_FILE, owners

SESSIONS = Path("/tmp/mags-test-sessions")
RUNTIME = Path("/run/mags")
VARIABLE = "MAGS_TEST_SESSION"


def current() -> str:
    """This session's id, for us and all that we start."""
    return os.environ.setdefault(VARIABLE, secrets.token_hex(8))


def place(kind: str) -> Path:
    """A directory of ours with a short path: those of unix sockets are bounded (107 bytes, unix(7))."""
    return Path(f"/tmp/{kind}-{current()[:8]}")


def begin(*places: Path) -> Callable[[], None]:
    """From now on we live, until the answer is called; the places are ours. Nothing of dead sessions is left.

    One that was interrupted may have left networks, whose locks it still holds: then it counts as dead.
    """
    SESSIONS.mkdir(exist_ok=True)
    mine = SESSIONS / current()
    with _alone():
        descriptor = os.open(mine, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        within_another = os.fstat(descriptor).st_size > 0
        if not within_another:
            os.write(descriptor, json.dumps({"places": [str(one.absolute()) for one in places]}).encode())
        for file in sorted(SESSIONS.iterdir()):
            with _dead(file) as is_dead:
                if is_dead:
                    _clear(file)
                    file.unlink()

    def end() -> None:
        if not within_another and not _networks(places):
            mine.unlink(missing_ok=True)
            for one in places:
                with suppress(OSError):  # none, or not empty
                    one.rmdir()
        os.close(descriptor)

    return end


@contextmanager
def _alone() -> Iterator[None]:
    descriptor = os.open(SESSIONS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _dead(file: Path) -> Iterator[bool]:
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _places(file: Path) -> set[Path]:
    try:
        return {Path(one) for one in json.loads(file.read_text())["places"]}
    except (OSError, ValueError, KeyError):
        return set()


def _clear(file: Path) -> None:
    for pid in processes(file.name):
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                if pid in processes(file.name):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)
    others = set().union(*(_places(other) for other in SESSIONS.iterdir() if other != file))
    for found in _places(file) - others:
        if found.is_dir():
            asyncio.run(_clear_place(found))
            shutil.rmtree(found, ignore_errors=True)


def _networks(places: Sequence[Path]) -> list[Path]:
    """States in these places that have networks."""
    return [state for _, state in owners(RUNTIME) if any(state.is_relative_to(one.absolute()) for one in places)]


async def _clear_place(found: Path) -> None:
    await remains.end_below(found)
    for id_file in found.rglob(ID_FILE):
        await remains.clear(id_file.parent, RUNTIME, lock_timeout=30)


def processes(session: str) -> list[int]:
    """Pids of all that the session has started and that still runs."""
    wanted, found = f"{VARIABLE}={session}".encode(), []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                if wanted in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
