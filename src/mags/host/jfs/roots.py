"""The directory of an export, and what is opened by its handles. The volume may be mounted anew beneath it."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mags.host.jfs.handles import Handles
from mags.host.jfs.protocol import Refusal, Status

T = TypeVar("T")
DEAD = frozenset({errno.ENOTCONN, errno.EBADF, errno.ECONNABORTED})


class Root:
    """Threads may share it.

    forget: closes what is open, as the mount is dead. lose: told that what was written may be lost.
    """

    def __init__(
        self, directory: Path, key: bytes, export: str, *, forget: Callable[[], None], lose: Callable[[], None]
    ) -> None:
        self._directory, self._key, self._export = directory, key, export
        self._forget, self._lose = forget, lose
        self._lock = threading.Lock()
        self._descriptors: list[int] = []
        """Those of dead mounts too: another thread may be using one, so its number must not be given again."""
        self._open()

    def _open(self) -> None:
        try:
            root = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:  # its volume is not mounted at the moment
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN)) from error
        self.descriptor = root
        self._descriptors.append(root)
        self.handles = Handles(root, self._key, self._export)
        self.number = os.fstat(root).st_ino
        """Of the directory, on the volume."""

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def attempt(self, work: Callable[[], T]) -> T:
        """Do a call; once more with new descriptors if the mount was made anew, or its processes were."""
        seen = len(self._descriptors)
        try:
            return self._checked(work)
        except OSError as error:
            if error.errno not in DEAD:
                raise
            with self._lock:
                if len(self._descriptors) == seen:
                    self._forget()
                    self._open()
                    self._lose()
            return self._checked(work)

    def _checked(self, work: Callable[[], T]) -> T:
        """The kernel calls every handle stale that it cannot look up now: believe it only if the volume works."""
        try:
            return work()
        except Refusal as refusal:
            if refusal.status is Status.STALE:
                try:
                    os.stat(f".probe-{secrets.token_hex(8)}", dir_fd=self.descriptor)  # a name that no cache knows
                except FileNotFoundError:
                    pass
            raise

    @contextmanager
    def path(self, handle: bytes) -> Iterator[int]:
        """The file, open for its attributes only."""
        descriptor = self.handles.open(handle, os.O_PATH | os.O_NOFOLLOW)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def directory(self, handle: bytes, flags: int = os.O_PATH) -> Iterator[int]:
        descriptor = self.handles.open(handle, flags | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def open_regular(self, handle: bytes, flags: int) -> int:
        """Open a file for its bytes. What is none is refused before it is opened: a FIFO would block."""
        with self.path(handle) as descriptor:
            mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise Refusal(Status.ISDIR if stat.S_ISDIR(mode) else Status.INVAL)
        return self.handles.open(handle, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
