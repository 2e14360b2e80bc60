"""Unpack a tar archive into a directory, confined to it by chroot: run as a program, by root, in a process of its own.

    python -m mags.host.images.unpack TREE [--layer] [--limit BYTES]  < archive

The archive is not trusted. The kernel resolves every name inside the chroot, so neither `..` nor a link planted by an
earlier entry reaches the host; names with `..` are refused all the same, for they are never honest. Device nodes,
sockets and FIFOs are left out (a guest has its own /dev). `--layer` gives the names `.wh.*` the meaning they have in
OCI layers (image-spec, layer.md, "Whiteouts"). Any compression that tarfile knows is recognised.

Exit status 0; 3 with one sentence on stderr when the archive is refused.
"""

# Plain os functions, each the one system call it is named after, with nothing resolved behind our back:
# ruff: noqa: PTH101, PTH102, PTH103, PTH108, PTH118, PTH120, PTH208, PTH211

from __future__ import annotations

import argparse

# Everything below is imported before the chroot; afterwards no module can be found any more.
import bz2  # noqa: F401
import gzip  # noqa: F401
import lzma  # noqa: F401
import os
import resource
import shutil
import stat
import sys
import tarfile
from typing import BinaryIO

REFUSED = 3
MEMBERS_LIMIT = 2_000_000
MEMORY_LIMIT = 1 << 30
"""Bytes of address space: tarfile takes as much for one extended header as the archive says that it is long."""
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
CAPABILITY = "security.capability"


class Refused(Exception):
    """The archive breaks a rule; the text is for the user."""


class Unpacker:
    """Applies one archive to the root directory of this (chrooted) process."""

    def __init__(self, *, layer: bool, limit: int) -> None:
        self._layer, self._limit = layer, limit
        self._made: set[str] = set()
        self._directories: list[tuple[str, tarfile.TarInfo]] = []

    def apply(self, file: BinaryIO) -> None:
        members = 0
        with tarfile.open(fileobj=file, mode="r|*", errorlevel=1) as archive:
            while (member := archive.next()) is not None:
                members += 1
                self._limit -= member.size if member.isreg() else 0
                if members > MEMBERS_LIMIT or self._limit < 0:
                    raise Refused("The archive is larger than an image may be.")
                self._apply_member(archive, member)
                archive.members = []  # type: ignore[attr-defined]  # a stream is read once; keep no list
        # Directories get their modes last, or a read-only one could not be filled.
        for path, member in reversed(self._directories):
            if stat.S_ISDIR(os.lstat(path).st_mode):
                _set_attributes(path, member)

    def _apply_member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = _inside(member.name)
        parent, name = os.path.split(path)
        if self._layer and name.startswith(WHITEOUT):
            self._white_out(parent, name)
            return
        if member.ischr() or member.isblk() or member.isfifo():
            return
        os.makedirs(parent, mode=0o755, exist_ok=True)
        if member.isdir():
            if not _is_directory(path):
                _remove(path)
                os.mkdir(path, 0o755)
            self._directories.append((path, member))
        elif member.islnk():
            target = _inside(member.linkname)
            if target != path:
                _remove(path)
                os.link(target, path, follow_symlinks=False)
        elif member.issym():
            _remove(path)
            os.symlink(member.linkname, path)
            os.lchown(path, member.uid, member.gid)
        elif member.isreg():
            _remove(path)
            self._write(archive, member, path)
        else:
            raise Refused(f"The archive holds {member.name!r} of an unknown type.")
        self._remember(path)

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        source = archive.extractfile(member)
        assert source is not None
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with source, os.fdopen(descriptor, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 18)
        _set_attributes(path, member)

    def _remember(self, path: str) -> None:
        if self._layer:
            while path != "/":
                self._made.add(path)
                path = os.path.dirname(path)

    def _white_out(self, parent: str, name: str) -> None:
        if not _is_directory(parent):
            return
        if name == OPAQUE:
            for child in os.listdir(parent):
                self._remove_older(os.path.join(parent, child))
        elif name != WHITEOUT and (victim := name.removeprefix(WHITEOUT)) not in (".", ".."):
            self._remove_older(os.path.join(parent, victim))

    def _remove_older(self, path: str) -> None:
        """Remove what lower layers left at `path`; what this layer itself put there stays."""
        if path not in self._made:
            _remove(path)
        elif _is_directory(path):
            for child in os.listdir(path):
                self._remove_older(os.path.join(path, child))


def _inside(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise Refused(f"The archive holds the name {name!r}, which leads out of it.")
    return "/" + "/".join(parts)


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    if _is_directory(path):
        shutil.rmtree(path)
    else:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


def _set_attributes(path: str, member: tarfile.TarInfo) -> None:
    os.chown(path, member.uid, member.gid)
    os.chmod(path, member.mode & 0o7777)
    capability = member.pax_headers.get(f"SCHILY.xattr.{CAPABILITY}")
    if capability is not None:
        os.setxattr(path, CAPABILITY, capability.encode("utf-8", "surrogateescape"))
    os.utime(path, (member.mtime, member.mtime))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("tree")
    parser.add_argument("--layer", action="store_true")
    parser.add_argument("--limit", type=int, required=True)
    wish = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    os.chroot(wish.tree)
    os.chdir("/")
    os.umask(0o022)
    try:
        Unpacker(layer=wish.layer, limit=wish.limit).apply(sys.stdin.buffer)
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return REFUSED
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        print(f"The archive cannot be unpacked: {error}.", file=sys.stderr)
        return REFUSED
    except MemoryError:
        print("The archive cannot be unpacked: it takes too much memory.", file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
