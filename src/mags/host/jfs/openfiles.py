"""Regular files that are kept open for a moment: NFS opens nothing, and a close per write would store each alone.

JuiceFS uploads what was written when a descriptor is closed or synced. So descriptors stay open until the client
commits or some idle seconds pass.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIMIT = 128
"""Files of one export that are kept open."""
IDLE = 3.0
"""Seconds without use until a file is closed."""


class OpenFile:
    def __init__(self, descriptor: int, writable: bool) -> None:
        self.descriptor, self.writable = descriptor, writable
        self.dirty = False
        """Written since the last fsync."""
        self.users = 0
        self.used = time.monotonic()
        self.kept = True


class OpenFiles:
    """Those of one export. Threads may share it. `on_loss` is told when written data may not have been stored."""

    def __init__(self, on_loss: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[bytes, OpenFile] = OrderedDict()
        self._on_loss = on_loss

    @contextmanager
    def use(self, handle: bytes, opener: Callable[[int], int], *, write: bool) -> Iterator[OpenFile]:
        """The file, open at least for reading; `opener(flags)` opens it if it is not."""
        file = self._take(handle, write)
        if file is None:
            file = self.put(handle, opener(os.O_RDWR if write else os.O_RDONLY), writable=write)
        try:
            yield file
        finally:
            self._release(file)

    def put(self, handle: bytes, descriptor: int, *, writable: bool) -> OpenFile:
        """Keep a file that was just opened, as one in use."""
        file = OpenFile(descriptor, writable)
        file.users = 1
        with self._lock:
            old = self._files.pop(handle, None)
            self._files[handle] = file
            surplus = [old] if old is not None else []
            while len(self._files) > LIMIT:
                surplus.append(self._files.popitem(last=False)[1])
            closing = [one for one in surplus if self._drop(one)]
        self._close(closing)
        return file

    def done(self, file: OpenFile) -> None:
        """End the use that `put` began."""
        self._release(file)

    def sync(self, handle: bytes) -> None:
        """Store what was written to a file. OSError if that fails: it may be lost then."""
        file = self._take(handle, True)
        if file is None:
            return  # closed since, and stored by that
        try:
            if file.dirty:
                file.dirty = False
                try:
                    os.fsync(file.descriptor)
                except OSError:
                    self.forget(handle)
                    self._on_loss()
                    raise
        finally:
            self._release(file)

    def forget(self, handle: bytes) -> None:
        """Do not use this descriptor again."""
        with self._lock:
            file = self._files.pop(handle, None)
            closing = [file] if file is not None and self._drop(file) else []
        self._close(closing)

    def sweep(self, *, idle: float = IDLE) -> None:
        """Close what was not used for `idle` seconds."""
        before = time.monotonic() - idle
        with self._lock:
            old = [handle for handle, file in self._files.items() if not file.users and file.used <= before]
            closing = [self._files.pop(handle) for handle in old]
        self._close(closing)

    def clear(self) -> None:
        """Forget all: descriptors in use are closed when their use ends."""
        with self._lock:
            closing = [file for file in self._files.values() if self._drop(file)]
            self._files.clear()
        self._close(closing)

    def _take(self, handle: bytes, write: bool) -> OpenFile | None:
        with self._lock:
            file = self._files.get(handle)
            if file is None or (write and not file.writable):
                return None
            self._files.move_to_end(handle)
            file.users += 1
            return file

    def _release(self, file: OpenFile) -> None:
        with self._lock:
            file.users -= 1
            file.used = time.monotonic()
            last = not file.kept and not file.users
        if last:
            self._close([file])

    @staticmethod
    def _drop(file: OpenFile) -> bool:
        """Whether a file that was just taken out is to be closed now (else its last user closes it)."""
        file.kept = False
        return not file.users

    def _close(self, files: list[OpenFile]) -> None:
        for file in files:
            try:
                if file.dirty:
                    os.fsync(file.descriptor)
            except OSError:
                self._on_loss()
            finally:
                try:
                    os.close(file.descriptor)
                except OSError:
                    self._on_loss()
