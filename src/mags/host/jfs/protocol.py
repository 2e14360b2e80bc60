"""Numbers of NFS version 3 and its MOUNT protocol (RFC 1813)."""

from __future__ import annotations

import errno
from enum import IntEnum

NFS_PROGRAM, MOUNT_PROGRAM, VERSION = 100003, 100005, 3
HANDLE_LIMIT = 64
NAME_LIMIT = 255
PATH_LIMIT = 1024
TARGET_LIMIT = 4096
"""Bytes of a symbolic link's target."""
DATA_LIMIT = 1 << 20
"""Bytes of one read or write."""
DIRECTORY_LIMIT = 256 << 10
"""Bytes of one answer about a directory."""


class Procedure(IntEnum):
    NULL, GETATTR, SETATTR, LOOKUP, ACCESS, READLINK, READ, WRITE, CREATE, MKDIR, SYMLINK = range(11)
    MKNOD, REMOVE, RMDIR, RENAME, LINK, READDIR, READDIRPLUS, FSSTAT, FSINFO, PATHCONF, COMMIT = range(11, 22)


class MountProcedure(IntEnum):
    NULL, MNT, DUMP, UMNT, UMNTALL, EXPORT = range(6)


class Status(IntEnum):
    OK = 0
    PERM = 1
    NOENT = 2
    IO = 5
    NXIO = 6
    ACCES = 13
    EXIST = 17
    XDEV = 18
    NODEV = 19
    NOTDIR = 20
    ISDIR = 21
    INVAL = 22
    FBIG = 27
    NOSPC = 28
    ROFS = 30
    MLINK = 31
    NAMETOOLONG = 63
    NOTEMPTY = 66
    DQUOT = 69
    STALE = 70
    BADHANDLE = 10001
    NOT_SYNC = 10002
    BAD_COOKIE = 10003
    NOTSUPP = 10004
    TOOSMALL = 10005
    SERVERFAULT = 10006
    BADTYPE = 10007
    JUKEBOX = 10008
    """Not now: the client waits and asks again."""


class FileType(IntEnum):
    REGULAR, DIRECTORY, BLOCK, CHARACTER, LINK, SOCKET, FIFO = range(1, 8)


class Stable(IntEnum):
    UNSTABLE, DATA_SYNC, FILE_SYNC = range(3)


class CreateMode(IntEnum):
    UNCHECKED, GUARDED, EXCLUSIVE = range(3)


class Access:
    READ, LOOKUP, MODIFY, EXTEND, DELETE, EXECUTE = (1 << bit for bit in range(6))


_STATUS = {
    errno.EPERM: Status.PERM,
    errno.ENOENT: Status.NOENT,
    errno.ENXIO: Status.NXIO,
    errno.EACCES: Status.ACCES,
    errno.EEXIST: Status.EXIST,
    errno.EXDEV: Status.XDEV,
    errno.ENODEV: Status.NODEV,
    errno.ENOTDIR: Status.NOTDIR,
    errno.EISDIR: Status.ISDIR,
    errno.EINVAL: Status.INVAL,
    errno.EFBIG: Status.FBIG,
    errno.ENOSPC: Status.NOSPC,
    errno.EROFS: Status.ROFS,
    errno.EMLINK: Status.MLINK,
    errno.ENAMETOOLONG: Status.NAMETOOLONG,
    errno.ENOTEMPTY: Status.NOTEMPTY,
    errno.EDQUOT: Status.DQUOT,
    errno.ESTALE: Status.STALE,
    errno.EOPNOTSUPP: Status.NOTSUPP,
    errno.ELOOP: Status.INVAL,
}
AWAY = frozenset({errno.ENOTCONN, errno.EBADF, errno.EIO, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EINTR})
"""What the volume says while its processes or its object store are away: the client is to ask again, so that
programs in the guest wait as for a slow disk."""


class Refusal(Exception):
    """A procedure ends with this status."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


def status_of(error: OSError) -> Status:
    """The status that says what the system call said."""
    if error.errno in AWAY:
        return Status.JUKEBOX
    return _STATUS.get(error.errno or 0, Status.IO)
