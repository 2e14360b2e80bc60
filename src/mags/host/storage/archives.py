"""A workspace as one tar file, and back: for backups, and for moving without a common store.

    mags-workspace.json   `Manifest`, and what version of this layout it is
    disk/OFFSET           the bytes of the disk at OFFSET (16 hexadecimal digits), where they are not zeros
    jfs/...               the files of /jfs, with modes, owners, times and links

The disk is kept as blocks: that is exact (deletions, modes, links, attributes of an overlay), and no file system made
by a guest is ever mounted on a host. An archive that comes in is hostile: names are checked, directories are opened
one by one and never through a link, devices are refused, and nothing is larger than it may be.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from mags.host.storage.copies import write_all
from mags.host.storage.errors import StorageError
from mags.host.storage.layout import GIB, Manifest

MANIFEST = "mags-workspace.json"
PIECE, BLOCK = 4 << 20, 64 << 10
NAMES_LIMIT = 10_000_000
DISK_LIMIT_GB = 16 << 10
HOSTILE = frozenset({errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL,
                     errno.ELOOP, errno.EPERM, errno.EMLINK, errno.EOVERFLOW})  # fmt: skip
"""What only impossible entries cause: names twice, links to nowhere."""
_DISK = re.compile(r"disk/([0-9a-f]{16})")


class BadArchive(StorageError):
    """This is no archive of a workspace."""


class Readable(Protocol):
    def read(self, size: int) -> bytes: ...


class Writable(Protocol):
    def write(self, data: bytes) -> int: ...


def write(out: Writable, manifest: Manifest, image: Path | None, jfs: Path) -> None:
    """Write an archive. image: the generation; None for a workspace that was never synced. Blocks."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=64 << 10) as tar:  # type: ignore[call-overload]
        _add(tar, MANIFEST, msgspec.json.encode(manifest))
        if image is not None:
            _write_disk(tar, image)
        _write_tree(tar, jfs)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))


def _write_disk(tar: tarfile.TarFile, image: Path) -> None:
    with image.open("rb") as file:
        offset = 0
        while data := os.pread(file.fileno(), PIECE, offset):
            for start, end in _runs(data):
                _add(tar, f"disk/{offset + start:016x}", data[start:end])
            offset += len(data)


def _runs(data: bytes) -> Iterator[tuple[int, int]]:
    """From where to where there are blocks that are not all zeros."""
    begin = None
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        if block.count(0) != len(block):
            begin = start if begin is None else begin
        elif begin is not None:
            yield begin, start
            begin = None
    if begin is not None:
        yield begin, len(data)


def _write_tree(tar: tarfile.TarFile, root: Path) -> None:
    seen: dict[int, str] = {}
    if not root.is_dir():
        return
    for path, directories, names, descriptor in os.fwalk(root, follow_symlinks=False):
        inside = Path("jfs", Path(path).relative_to(root))
        for name in sorted((*directories, *names)):
            _write_entry(tar, str(inside / name), name, descriptor, seen)


def _write_entry(tar: tarfile.TarFile, path: str, name: str, directory: int, seen: dict[int, str]) -> None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    member = tarfile.TarInfo(path)
    member.mode, member.uid, member.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    member.mtime = status.st_mtime_ns / 1e9
    if stat.S_ISDIR(status.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=directory)
    elif stat.S_ISFIFO(status.st_mode):
        member.type = tarfile.FIFOTYPE
    elif not stat.S_ISREG(status.st_mode):
        return  # a socket: it means nothing without its program
    elif status.st_nlink > 1 and status.st_ino in seen:
        member.type, member.linkname = tarfile.LNKTYPE, seen[status.st_ino]
    else:
        seen[status.st_ino] = path
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
        with os.fdopen(descriptor, "rb") as file:
            member.size = os.fstat(descriptor).st_size
            tar.addfile(member, _Exactly(file, member.size))
        return
    tar.addfile(member)


class _Exactly:
    """A file that may shrink or grow while it is read: as many bytes as its header says, come what may."""

    def __init__(self, file: Readable, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted).ljust(wanted, b"\0")
        self._left -= wanted
        return data


def read(source: Readable, image: Path, jfs: Path, *, limit: int) -> Manifest:
    """Read an archive into a new image and an empty directory. Blocks. `limit`: bytes of everything together.

    BadArchive when it is none, or not one that we would have written.
    """
    try:
        # Its own errors on hostile bytes are many.
        with tarfile.open(fileobj=source, mode="r|", bufsize=64 << 10) as tar:  # type: ignore[call-overload]
            return _read_members(iter(tar), tar, image, jfs, limit)
    except (tarfile.TarError, ValueError, EOFError, OverflowError, msgspec.MsgspecError) as error:
        raise BadArchive(f"This is not a whole archive of a workspace: {error}.") from error
    except OSError as error:
        if error.errno in HOSTILE:
            raise BadArchive(f"The archive has entries that cannot be: {error.strerror}.") from error
        raise


def _read_members(
    members: Iterator[tarfile.TarInfo], tar: tarfile.TarFile, image: Path, jfs: Path, limit: int
) -> Manifest:
    first = next(members, None)
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > 64 << 10:
        raise BadArchive("This is not an archive of a workspace: its first part is another.")
    manifest = msgspec.json.decode(_bytes(tar, first), type=Manifest)
    if not 1 <= manifest.disk_gb <= DISK_LIMIT_GB:
        raise BadArchive("The archive is of a disk of an impossible size.")
    root = os.open(jfs, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    disk = os.open(image, os.O_RDWR | os.O_NOFOLLOW)
    later: list[tuple[list[str], tarfile.TarInfo]] = []
    try:
        os.ftruncate(disk, manifest.disk_gb * GIB)
        for number, member in enumerate(members):
            limit -= max(member.size, 512)
            if limit < 0 or number > NAMES_LIMIT:
                raise BadArchive("The archive is larger than a workspace may be.")
            if found := _DISK.fullmatch(member.name):
                _read_piece(tar, member, disk, int(found.group(1), 16), manifest.disk_gb * GIB)
            elif member.name.startswith("jfs/"):
                _read_entry(tar, member, root, later)
            else:
                raise BadArchive(f"The archive has a part that does not belong there: {member.name[:100]!r}.")
        # Times and modes of directories last: filling one changes the first and may need the second.
        for parts, member in reversed(later):
            with _directory(root, parts) as descriptor:
                _dress(descriptor, member)
        os.fsync(disk)
    finally:
        os.close(disk)
        os.close(root)
    return manifest


def _read_piece(tar: tarfile.TarFile, member: tarfile.TarInfo, disk: int, offset: int, size: int) -> None:
    if not member.isreg() or member.size > PIECE or offset + member.size > size:
        raise BadArchive("A part of the archive's disk lies outside it.")
    write_all(disk, _bytes(tar, member), offset)


def _read_entry(
    tar: tarfile.TarFile, member: tarfile.TarInfo, root: int, later: list[tuple[list[str], tarfile.TarInfo]]
) -> None:
    *above, name = parts = _parts(member.name)
    with _directory(root, above) as directory:
        if member.isdir():
            os.mkdir(name, 0o700, dir_fd=directory)
            later.append((parts, member))
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=directory)
            os.chown(name, member.uid, member.gid, dir_fd=directory, follow_symlinks=False)
        elif member.islnk():
            *other, target = _parts(member.linkname)
            with _directory(root, other) as source:
                os.link(target, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=directory)
            os.chown(name, member.uid, member.gid, dir_fd=directory, follow_symlinks=False)
        elif member.isreg():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(name, flags, 0o600, dir_fd=directory)
            try:
                source_file = tar.extractfile(member)
                assert source_file is not None
                offset = 0
                while data := source_file.read(PIECE):
                    write_all(descriptor, data, offset)
                    offset += len(data)
                _dress(descriptor, member)
            finally:
                os.close(descriptor)
        else:
            raise BadArchive(f"The archive has a device, which /jfs never has: {member.name[:100]!r}.")


def _dress(descriptor: int, member: tarfile.TarInfo) -> None:
    os.fchown(descriptor, member.uid, member.gid)
    os.fchmod(descriptor, member.mode & 0o7777)
    moment = min(max(0.0, float(member.mtime)), 2.0**33)
    os.utime(descriptor, (moment, moment))


def _parts(path: str) -> list[str]:
    """The components of a name below /jfs."""
    parts = path.rstrip("/").split("/")
    if parts[0] != "jfs" or len(parts) < 2 or len(parts) > 256 or any(part in ("", ".", "..") for part in parts):
        raise BadArchive(f"The archive has an impossible name: {path[:100]!r}.")
    return parts[1:]


@contextmanager
def _directory(root: int, parts: list[str]) -> Iterator[int]:
    """The directory, opened step by step so that no link is followed. BadArchive if it was not made before."""
    descriptor = os.dup(root)
    try:
        for part in parts:
            try:
                deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise BadArchive(f"The archive has a file in what is no directory: {part[:100]!r}.") from error
            os.close(descriptor)
            descriptor = deeper
        yield descriptor
    finally:
        os.close(descriptor)


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise BadArchive("The archive ends too early.")
    return data
