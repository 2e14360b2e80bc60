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
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mags.host import remains
from mags.host.network.claims import ID_FILE, owners

SESSIONS = Path("/tmp/mags-test-sessions")
RUNTIME = Path("/run/mags")
VARIABLE = "MAGS_TEST_SESSION"
FOLDERS = "mi"
"""Kind of the place that every session has, for `new_folder`."""


def current() -> str:
    """This session's id, for us and all that we start."""
    return os.environ.setdefault(VARIABLE, secrets.token_hex(8))


def place(kind: str) -> Path:
    """A directory of ours with a short path: those of unix sockets are bounded (107 bytes, unix(7))."""
    return Path(f"/tmp/{kind}-{current()[:8]}")


def new_folder() -> Path:
    """A directory in our place, for whoever needs short paths, or leaves more than files: what an interrupted session
    has left below goes when the next one begins. Others may look for what they know in it."""
    parent = place(FOLDERS)
    parent.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="", dir=parent))
    made.chmod(0o755)
    return made


@contextmanager
def folder() -> Iterator[Path]:
    """The same for the time of the block."""
    made = new_folder()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def begin(*places: Path) -> Callable[[], None]:
    """From now on we live, until the answer is called; the places are ours. Nothing of dead sessions is left.

    One that was interrupted may have left something, and still hold its locks: then it counts as dead.
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
        if not within_another and _left(places):  # interrupted
            _clear(mine)
        if not within_another and not _left(places):
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
    for pid in set(processes(file.name)) - _lineage():
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
    asyncio.run(remains.clear_abandoned(RUNTIME))  # of states that were removed under their programs


def _left(places: Sequence[Path]) -> bool:
    """Whether there are processes of ours, networks of states in these places, or files in the one for folders."""
    ours = [one.absolute() for one in places]
    networks = any(state.is_relative_to(one) for _, state in owners(RUNTIME) for one in ours)
    return networks or bool(others()) or any(place(FOLDERS).glob("*"))


async def _clear_place(found: Path) -> None:
    await remains.end_below(found)
    for id_file in found.rglob(ID_FILE):
        await remains.clear(id_file.parent, RUNTIME, lock_timeout=30)


def others() -> list[int]:
    """Pids of what this session has started and that still runs, but for ourselves and our ancestors."""
    return sorted(set(processes(current())) - _lineage())


def _lineage() -> set[int]:
    """Our pid and our ancestors'."""
    found, pid = set[int](), os.getpid()
    while pid > 1:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def processes(session: str) -> list[int]:
    """Pids of all that the session has started and that still runs."""
    wanted, found = f"{VARIABLE}={session}".encode(), []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                if wanted in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
