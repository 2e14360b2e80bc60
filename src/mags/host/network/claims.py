"""Whose a directory of networks is: a file `owner` in it names the state that made it, and is locked by its program.

    RUNTIME/INSTALLATION/owner   {"state": PATH}, flock(2): shared by whoever uses it, exclusive to remove it all
    RUNTIME/INSTALLATION/net/N   namespaces

What is neither locked nor has its state any more belongs to nobody: no program will ever take it over.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWNER = "owner"
ID_FILE = "network-id"
"""In the state: the installation's id."""


def claim(directory: Path, state: Path) -> int:
    """Take the directory of an installation, made if need be, for as long as the descriptor is open."""
    while True:
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        except FileExistsError:
            if directory.exists():
                raise  # it is no directory
            continue  # it was one until just now
        try:
            descriptor = os.open(directory / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # somebody removed the directory just now
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _is(descriptor, directory / OWNER):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps({"state": str(state.absolute())}).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def unused(directory: Path) -> Iterator[bool]:
    """Whether no living program has the directory; none can claim it within the block."""
    try:
        descriptor = os.open(directory / OWNER, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def owners(runtime: Path) -> Iterator[tuple[str, Path]]:
    """(installation, state) of every directory there that says whose it is."""
    for file in sorted(runtime.glob(f"*/{OWNER}")):
        try:
            yield file.parent.name, Path(json.loads(file.read_bytes())["state"])
        except (OSError, ValueError, KeyError, TypeError):
            continue


def is_gone(state: Path, installation: str) -> bool:
    """Whether the state of an installation was removed, or has made room for another's."""
    try:
        return (state / ID_FILE).read_text().strip() != installation
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
