"""What the procedures of NFS do, on the files of one export. Every call blocks; run it in a thread.

Files are given by their handles and new descriptors are opened for each call, so the calls have no state but for the
caches. The caller's user and group become owners of what is made; reading and writing is not checked against them:
the guest's kernel asks `access` first, and its root may do everything in its own workspace anyway.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mags.host.jfs import beneath
from mags.host.jfs.beneath import UTIME_NOW, UTIME_OMIT, check_name
from mags.host.jfs.listings import Listings
from mags.host.jfs.openfiles import OpenFiles
from mags.host.jfs.permit import Ask, freely
from mags.host.jfs.protocol import Access, CreateMode, Refusal, Status
from mags.host.jfs.roots import Root
from mags.host.jfs.rpc import Caller

T = TypeVar("T")
Attributes = os.stat_result


@dataclass(frozen=True, slots=True)
class Changes:
    """A `sattr3`: None leaves a thing as it is; a time is (seconds, nanoseconds), or (0, UTIME_NOW)."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime: tuple[int, int] | None = None
    mtime: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A new entry: its handle and attributes, and its directory's attributes before and after."""

    handle: bytes
    attributes: Attributes
    before: Attributes
    after: Attributes


class Files:
    """The files below one directory."""

    def __init__(self, directory: Path, key: bytes, export: str, permit: Ask = freely) -> None:
        """permit: whether anything may be changed now."""
        self.permit = permit
        self._listings = Listings()
        self._opened = OpenFiles(self.lose)
        self.verifier = secrets.token_bytes(8)
        """Changes when written but uncommitted data may be lost; clients then write it again."""
        self._root = Root(directory, key, export, forget=self._opened.clear, lose=self.lose)

    def close(self) -> None:
        self._opened.clear()
        self._root.close()

    def lose(self) -> None:
        self.verifier = secrets.token_bytes(8)

    def sweep(self) -> None:
        """Close files that are idle. Call it about once a second."""
        self._opened.sweep()

    def attempt(self, work: Callable[[], T]) -> T:
        """Do a call; again if the volume was mounted anew."""
        return self._root.attempt(work)

    # --- looking

    def root(self) -> tuple[bytes, Attributes]:
        return self._root.handles.of(self._root.descriptor), os.fstat(self._root.descriptor)

    def attributes(self, handle: bytes) -> Attributes:
        with self._root.path(handle) as descriptor:
            return os.fstat(descriptor)

    def lookup(self, directory: bytes, name: bytes) -> tuple[bytes, Attributes, Attributes]:
        """Handle and attributes of the entry, and attributes of the directory."""
        with self._root.directory(directory) as parent:
            above = os.fstat(parent)
            if name == b".":
                return directory, above, above
            if name == b"..":
                if above.st_ino == self._root.number:
                    return directory, above, above
                found = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
            else:
                found = beneath.open_beneath(parent, check_name(name), os.O_PATH)
            try:
                return self._root.handles.of(found), os.fstat(found), above
            finally:
                os.close(found)

    def access(self, handle: bytes, wanted: int, caller: Caller) -> tuple[int, Attributes]:
        """The bits of `wanted` that the caller has, by the file's mode as POSIX reads it."""
        attributes = self.attributes(handle)
        return wanted & _allowed(attributes, caller), attributes

    def read_link(self, handle: bytes) -> tuple[bytes, Attributes]:
        with self._root.path(handle) as descriptor:
            attributes = os.fstat(descriptor)
            if not stat.S_ISLNK(attributes.st_mode):
                raise Refusal(Status.INVAL)
            return beneath.read_link(descriptor), attributes

    def list(self, handle: bytes, cookie: int) -> tuple[Attributes, int, list[tuple[int, bytes]]]:
        """Attributes of the directory, the number of its parent, and its entries behind the cookie."""
        with self._root.directory(handle, os.O_RDONLY) as directory:
            attributes = os.fstat(directory)
            above = attributes if attributes.st_ino == self._root.number else os.stat("..", dir_fd=directory)
            return attributes, above.st_ino, self._listings.after(directory, cookie)

    def entry(self, handle: bytes, name: bytes) -> tuple[bytes, Attributes] | None:
        """Handle and attributes of an entry; None if it has gone."""
        try:
            found, attributes, _ = self.lookup(handle, name)
            return found, attributes
        except FileNotFoundError:
            return None

    def file_system(self, handle: bytes) -> tuple[os.statvfs_result, Attributes]:
        with self._root.path(handle) as descriptor:
            return os.statvfs(descriptor), os.fstat(descriptor)

    # --- bytes

    def read(self, handle: bytes, offset: int, count: int) -> tuple[bytes, bool, Attributes]:
        """The bytes, whether the file ends there, and its attributes."""
        with self._opened.use(handle, lambda flags: self._root.open_regular(handle, flags), write=False) as file:
            data = os.pread(file.descriptor, count, offset)
            attributes = os.fstat(file.descriptor)
            return data, offset + len(data) >= attributes.st_size, attributes

    def write(self, handle: bytes, offset: int, data: bytes, *, stable: bool) -> tuple[Attributes, Attributes]:
        """Attributes before and after. `stable`: in the store before this returns."""
        with self._opened.use(handle, lambda flags: self._root.open_regular(handle, flags), write=True) as file:
            before = os.fstat(file.descriptor)
            view, at = memoryview(data), offset
            try:
                file.dirty = True
                while view:
                    written = os.pwrite(file.descriptor, view, at)
                    view, at = view[written:], at + written
            except OSError:
                # JuiceFS remembers a failed upload for as long as the descriptor is open.
                self._opened.forget(handle)
                raise
            if stable:
                self._opened.sync(handle)
            return before, os.fstat(file.descriptor)

    def commit(self, handle: bytes) -> tuple[Attributes, bytes]:
        """Attributes, and the verifier that was valid when everything was stored."""
        attributes = self.attributes(handle)
        self._opened.sync(handle)
        return attributes, self.verifier

    # --- changing

    def change(self, handle: bytes, changes: Changes, guard: tuple[int, int] | None) -> tuple[Attributes, Attributes]:
        """Attributes before and after. `guard`: refused (NOT_SYNC) unless that is the file's ctime."""
        with self._root.path(handle) as descriptor:
            before = os.fstat(descriptor)
            if guard is not None and guard != divmod(before.st_ctime_ns, 10**9):
                raise Refusal(Status.NOT_SYNC)
            self._apply(handle, descriptor, before, changes)
            return before, os.fstat(descriptor)

    def create(
        self, directory: bytes, name: bytes, how: CreateMode, changes: Changes, token: bytes, caller: Caller
    ) -> Made:
        """Make a regular file. `token`: the client's verifier of an EXCLUSIVE creation, kept in the file's times."""
        times = _token_times(token) if how is CreateMode.EXCLUSIVE else None
        with self._root.directory(directory) as parent:
            before = os.fstat(parent)
            fresh = True
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                made = beneath.open_beneath(parent, check_name(name), flags, 0o600 if times else changes.mode or 0)
            except FileExistsError:
                if how is CreateMode.GUARDED:
                    raise
                fresh = False
                made = beneath.open_beneath(parent, name, os.O_PATH)
            try:
                attributes = os.fstat(made)
                if not fresh and times is not None and not _carries(attributes, times):
                    raise Refusal(Status.EXIST)
                if not fresh and not stat.S_ISREG(attributes.st_mode):
                    raise Refusal(Status.EXIST)
                handle = self._root.handles.of(made)
                if fresh:
                    self._own(made, before, caller, changes)
                    if times is not None:
                        beneath.set_times(made, *times)
                    else:
                        self._apply(handle, made, attributes, changes)
                elif changes.size is not None:
                    self._apply(handle, made, attributes, Changes(size=changes.size))
                attributes = os.fstat(made)
            except BaseException:
                os.close(made)
                raise
            if fresh:
                self._opened.done(self._opened.put(handle, made, writable=True))
            else:
                os.close(made)
            return Made(handle, attributes, before, os.fstat(parent))

    def make_directory(self, directory: bytes, name: bytes, changes: Changes, caller: Caller) -> Made:
        mode = 0o755 if changes.mode is None else changes.mode
        return self._make(
            directory, name, changes, caller, lambda parent, text: os.mkdir(text, mode & 0o7777, dir_fd=parent)
        )

    def make_link(self, directory: bytes, name: bytes, target: bytes, changes: Changes, caller: Caller) -> Made:
        """A symbolic link. It is only ever followed in the guest."""
        if not target or b"\0" in target:
            raise Refusal(Status.INVAL)
        return self._make(
            directory, name, changes, caller, lambda parent, text: os.symlink(target, text, dir_fd=parent)
        )

    def make_fifo(self, directory: bytes, name: bytes, changes: Changes, caller: Caller, *, socket: bool) -> Made:
        """A FIFO or a socket: names that mean something to the guest only. Devices are refused by the caller."""
        kind = (stat.S_IFSOCK if socket else stat.S_IFIFO) | (0o600 if changes.mode is None else changes.mode & 0o777)
        return self._make(directory, name, changes, caller, lambda parent, text: os.mknod(text, kind, dir_fd=parent))

    def remove(self, directory: bytes, name: bytes, *, tree: bool) -> tuple[Attributes, Attributes]:
        """Attributes of the directory before and after. `tree`: a directory, which must be empty; else a file."""
        with self._root.directory(directory) as parent:
            before = os.fstat(parent)
            (os.rmdir if tree else os.unlink)(check_name(name), dir_fd=parent)
            return before, os.fstat(parent)

    def rename(self, source: bytes, name: bytes, target: bytes, new: bytes) -> tuple[Attributes, ...]:
        """Attributes of both directories: source's before and after, target's before and after."""
        with self._root.directory(source) as one, self._root.directory(target) as two:
            before = os.fstat(one), os.fstat(two)
            os.rename(check_name(name), check_name(new), src_dir_fd=one, dst_dir_fd=two)
            return before[0], os.fstat(one), before[1], os.fstat(two)

    def link(self, handle: bytes, directory: bytes, name: bytes) -> tuple[Attributes, Attributes, Attributes]:
        """Attributes of the file, and of the directory before and after."""
        with self._root.path(handle) as file, self._root.directory(directory) as parent:
            before = os.fstat(parent)
            kind = os.fstat(file).st_mode
            if stat.S_ISDIR(kind):
                raise Refusal(Status.ISDIR)
            if stat.S_ISLNK(kind):
                raise Refusal(Status.NOTSUPP)
            os.link(beneath.proc_path(file), check_name(name), dst_dir_fd=parent, follow_symlinks=True)
            return os.fstat(file), before, os.fstat(parent)

    # --- inside

    def _make(
        self, directory: bytes, name: bytes, changes: Changes, caller: Caller, make: Callable[[int, bytes], None]
    ) -> Made:
        with self._root.directory(directory) as parent:
            before = os.fstat(parent)
            make(parent, check_name(name))
            made = beneath.open_beneath(parent, name, os.O_PATH)
            try:
                self._own(made, before, caller, changes)
                attributes = os.fstat(made)
                handle = self._root.handles.of(made)
                if not stat.S_ISLNK(attributes.st_mode):
                    self._apply(handle, made, attributes, changes)
                return Made(handle, os.fstat(made), before, os.fstat(parent))
            finally:
                os.close(made)

    def _own(self, made: int, parent: Attributes, caller: Caller, changes: Changes) -> None:
        """Give a new file its owner: who made it; the group of a directory with the set-group-ID bit."""
        group = parent.st_gid if parent.st_mode & stat.S_ISGID else caller.gid
        beneath.chown(
            made,
            caller.uid if changes.uid is None else changes.uid,
            group if changes.gid is None else changes.gid,
        )

    def _apply(self, handle: bytes, descriptor: int, attributes: Attributes, changes: Changes) -> None:
        if changes.uid is not None or changes.gid is not None:
            beneath.chown(
                descriptor,
                -1 if changes.uid is None else changes.uid,
                -1 if changes.gid is None else changes.gid,
            )
        if changes.mode is not None:
            if stat.S_ISLNK(attributes.st_mode):
                raise Refusal(Status.NOTSUPP)
            os.chmod(beneath.proc_path(descriptor), changes.mode & 0o7777)  # noqa: PTH101 - after chown, which clears bits
        if changes.size is not None:
            with self._opened.use(handle, lambda flags: self._root.open_regular(handle, flags), write=True) as file:
                os.ftruncate(file.descriptor, changes.size)
                file.dirty = True
        if changes.atime is not None or changes.mtime is not None:
            omit = (0, UTIME_OMIT)
            beneath.set_times(descriptor, changes.atime or omit, changes.mtime or omit)


def _allowed(attributes: Attributes, caller: Caller) -> int:
    mode = attributes.st_mode
    if caller.uid == 0:
        bits = 0o6 | (1 if stat.S_ISDIR(mode) or mode & 0o111 else 0)
    elif caller.uid == attributes.st_uid:
        bits = mode >> 6 & 7
    elif attributes.st_gid in (caller.gid, *caller.groups):
        bits = mode >> 3 & 7
    else:
        bits = mode & 7
    allowed = Access.READ if bits & 4 else 0
    if bits & 2:
        allowed |= Access.MODIFY | Access.EXTEND | (Access.DELETE if stat.S_ISDIR(mode) else 0)
    if bits & 1:
        allowed |= Access.LOOKUP if stat.S_ISDIR(mode) else Access.EXECUTE
    return allowed


def _token_times(token: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    """A client's 8 bytes as two times, 31 bits each, which every file system can hold."""
    one, two = int.from_bytes(token[:4], "big"), int.from_bytes(token[4:], "big")
    return (one & 0x7FFF_FFFF, 0), (two & 0x7FFF_FFFF, 0)


def _carries(attributes: Attributes, times: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    return (int(attributes.st_atime), int(attributes.st_mtime)) == (times[0][0], times[1][0])


__all__ = ["UTIME_NOW", "Attributes", "Changes", "Files", "Made"]
