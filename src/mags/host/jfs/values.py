"""The values of NFS version 3 (RFC 1813, 2.5 and 2.6) that many procedures take or give, read and written."""

from __future__ import annotations

import stat

from mags.host.jfs import protocol
from mags.host.jfs.files import UTIME_NOW, Attributes, Changes, Made
from mags.host.jfs.protocol import FileType, Refusal, Status
from mags.host.jfs.xdr import Garbage, Reader, Writer

_KINDS = {
    stat.S_IFREG: FileType.REGULAR,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFBLK: FileType.BLOCK,
    stat.S_IFCHR: FileType.CHARACTER,
    stat.S_IFLNK: FileType.LINK,
    stat.S_IFSOCK: FileType.SOCKET,
    stat.S_IFIFO: FileType.FIFO,
}


def attributes(out: Writer, one: Attributes) -> Writer:
    """fattr3"""
    kind = _KINDS.get(stat.S_IFMT(one.st_mode), FileType.REGULAR)
    out.u32(kind, one.st_mode & 0o7777, one.st_nlink, one.st_uid, one.st_gid)
    out.u64(one.st_size, one.st_blocks * 512).u32(0, 0).u64(1, one.st_ino)
    for moment in (one.st_atime_ns, one.st_mtime_ns, one.st_ctime_ns):
        seconds, nanoseconds = divmod(moment, 10**9)
        out.u32(seconds & 0xFFFFFFFF, nanoseconds)
    return out


def after(out: Writer, one: Attributes) -> Writer:
    """post_op_attr"""
    return attributes(out.boolean(True), one)


def both(out: Writer, before: Attributes, now: Attributes) -> Writer:
    """wcc_data"""
    out.boolean(True).u64(before.st_size)
    for moment in (before.st_mtime_ns, before.st_ctime_ns):
        seconds, nanoseconds = divmod(moment, 10**9)
        out.u32(seconds & 0xFFFFFFFF, nanoseconds)
    return after(out, now)


def made(one: Made) -> Writer:
    """The whole result of a procedure that makes something."""
    out = Writer().u32(Status.OK).boolean(True).opaque(one.handle)
    return both(after(out, one.attributes), one.before, one.after)


def handle(reader: Reader) -> bytes:
    return reader.opaque(protocol.HANDLE_LIMIT)


def name(reader: Reader) -> bytes:
    return reader.opaque(protocol.PATH_LIMIT)


def changes(reader: Reader) -> Changes:
    """sattr3"""
    mode, uid, gid = (reader.u32() if reader.boolean() else None for _ in range(3))
    size = reader.u64() if reader.boolean() else None
    if size is not None and size >> 63:
        raise Refusal(Status.FBIG)
    return Changes(mode, uid, gid, size, _time(reader), _time(reader))


def _time(reader: Reader) -> tuple[int, int] | None:
    how = reader.u32()
    if how > 2:
        raise Garbage("an unknown way to set a time")
    if how == 0:
        return None
    if how == 1:
        return 0, UTIME_NOW
    seconds, nanoseconds = reader.u32(), reader.u32()
    if nanoseconds >= 10**9:
        raise Refusal(Status.INVAL)
    return seconds, nanoseconds


def offset(reader: Reader) -> int:
    number = reader.u64()
    if number >> 63:
        raise Refusal(Status.FBIG)
    return number
