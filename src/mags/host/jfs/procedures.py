"""The procedures of NFS version 3 and of MOUNT version 3 (RFC 1813): arguments in, results out. They block.

A result is a status and what belongs to it. A refusal's result has only attributes that may be left out, so every
refusal is the status and some empty optionals (`_EMPTY`).
"""

from __future__ import annotations

from collections.abc import Callable

from mags.host.jfs import protocol, values
from mags.host.jfs.files import Changes, Files
from mags.host.jfs.permit import Permit
from mags.host.jfs.protocol import CreateMode, FileType, MountProcedure, Procedure, Refusal, Stable, Status, status_of
from mags.host.jfs.rpc import AUTH_SYS, Caller
from mags.host.jfs.xdr import Garbage, Reader, Writer

PATH = b"/jfs"
"""The only path that MOUNT gives out: every VM has one export."""

_P = Procedure
_EMPTY = {_P.GETATTR: 0, _P.SETATTR: 2, _P.WRITE: 2, _P.CREATE: 2, _P.MKDIR: 2, _P.SYMLINK: 2, _P.MKNOD: 2,
          _P.REMOVE: 2, _P.RMDIR: 2, _P.RENAME: 4, _P.LINK: 3, _P.COMMIT: 2}  # fmt: skip
"""Optional values of a refusal, each 4 bytes of zeros; 1 where nothing is said."""
IDEMPOTENT = frozenset(Procedure) - {
    _P.SETATTR, _P.CREATE, _P.MKDIR, _P.SYMLINK, _P.MKNOD, _P.REMOVE, _P.RMDIR, _P.RENAME, _P.LINK,
}  # fmt: skip
"""What may be done twice. The others' replies are kept, for a client that lost the connection and asks again."""
CHANGES = frozenset(Procedure) - IDEMPOTENT | {_P.WRITE, _P.COMMIT}
"""What changes the files: not without a permit."""

Work = Callable[[Files, Reader, Caller], Writer]


def nfs(files: Files, number: int, arguments: memoryview, caller: Caller) -> bytes:
    """The results of a procedure. Garbage when the arguments can't be read; KeyError for an unknown procedure."""
    procedure = Procedure(number)
    work = _WORK[procedure]
    try:
        if procedure in CHANGES:
            permit = files.permit()
            if permit is Permit.NO:
                raise Refusal(Status.JUKEBOX)
            if permit is Permit.AT_ONCE and procedure is Procedure.WRITE:
                work = _write_through
        return files.attempt(lambda: work(files, Reader(arguments), caller)).done()
    except Refusal as refusal:
        status = refusal.status
    except OSError as error:
        status = status_of(error)
    return Writer().u32(status).raw(bytes(4 * _EMPTY.get(procedure, 1))).done()


def mount(files: Files, number: int, arguments: memoryview) -> bytes:
    """The results of a procedure of MOUNT."""
    procedure, reader = MountProcedure(number), Reader(arguments)
    if procedure is MountProcedure.MNT:
        if reader.opaque(protocol.PATH_LIMIT).rstrip(b"/") != PATH:
            return Writer().u32(Status.NOENT).done()
        try:
            handle, _ = files.attempt(files.root)
        except OSError as error:
            return Writer().u32(Status.IO if status_of(error) is Status.JUKEBOX else status_of(error)).done()
        return Writer().u32(Status.OK).opaque(handle).u32(1, AUTH_SYS).done()
    if procedure is MountProcedure.EXPORT:
        return Writer().u32(1).opaque(PATH).u32(0, 0).done()
    if procedure is MountProcedure.DUMP:
        return Writer().u32(0).done()
    return b""


# --- procedures


def _null(files: Files, reader: Reader, caller: Caller) -> Writer:
    return Writer()


def _getattr(files: Files, reader: Reader, caller: Caller) -> Writer:
    return values.attributes(Writer().u32(Status.OK), files.attributes(values.handle(reader)))


def _setattr(files: Files, reader: Reader, caller: Caller) -> Writer:
    handle, changes = values.handle(reader), values.changes(reader)
    guard = (reader.u32(), reader.u32()) if reader.boolean() else None
    return values.both(Writer().u32(Status.OK), *files.change(handle, changes, guard))


def _lookup(files: Files, reader: Reader, caller: Caller) -> Writer:
    handle, attributes, directory = files.lookup(values.handle(reader), values.name(reader))
    return values.after(values.after(Writer().u32(Status.OK).opaque(handle), attributes), directory)


def _access(files: Files, reader: Reader, caller: Caller) -> Writer:
    allowed, attributes = files.access(values.handle(reader), reader.u32(), caller)
    return values.after(Writer().u32(Status.OK), attributes).u32(allowed)


def _readlink(files: Files, reader: Reader, caller: Caller) -> Writer:
    target, attributes = files.read_link(values.handle(reader))
    return values.after(Writer().u32(Status.OK), attributes).opaque(target)


def _read(files: Files, reader: Reader, caller: Caller) -> Writer:
    handle, offset, count = values.handle(reader), values.offset(reader), reader.u32()
    data, end, attributes = files.read(handle, offset, min(count, protocol.DATA_LIMIT))
    return values.after(Writer().u32(Status.OK), attributes).u32(len(data)).boolean(end).opaque(data)


def _write(files: Files, reader: Reader, caller: Caller, *, through: bool = False) -> Writer:
    handle, offset, count, stable = values.handle(reader), values.offset(reader), reader.u32(), reader.u32()
    data = reader.opaque(protocol.DATA_LIMIT)
    if stable > 2 or len(data) != count or (offset + count) >> 63:
        raise Refusal(Status.INVAL)
    verifier = files.verifier
    stable = Stable.FILE_SYNC if through else stable
    before, after = files.write(handle, offset, data, stable=stable != Stable.UNSTABLE)
    out = values.both(Writer().u32(Status.OK), before, after)
    return out.u32(count, Stable.FILE_SYNC if stable else Stable.UNSTABLE).fixed(verifier)


def _write_through(files: Files, reader: Reader, caller: Caller) -> Writer:
    return _write(files, reader, caller, through=True)


def _create(files: Files, reader: Reader, caller: Caller) -> Writer:
    directory, name, number = values.handle(reader), values.name(reader), reader.u32()
    if number > 2:
        raise Garbage("an unknown way to create")
    how = CreateMode(number)
    changes, token = (Changes(), reader.fixed(8)) if how is CreateMode.EXCLUSIVE else (values.changes(reader), b"")
    return values.made(files.create(directory, name, how, changes, token, caller))


def _mkdir(files: Files, reader: Reader, caller: Caller) -> Writer:
    return values.made(files.make_directory(values.handle(reader), values.name(reader), values.changes(reader), caller))


def _symlink(files: Files, reader: Reader, caller: Caller) -> Writer:
    directory, name, changes = values.handle(reader), values.name(reader), values.changes(reader)
    return values.made(files.make_link(directory, name, reader.opaque(protocol.TARGET_LIMIT), changes, caller))


def _mknod(files: Files, reader: Reader, caller: Caller) -> Writer:
    directory, name, kind = values.handle(reader), values.name(reader), reader.u32()
    if kind not in (FileType.FIFO, FileType.SOCKET):  # a device would be one of the host's
        raise Refusal(Status.PERM if kind in (FileType.BLOCK, FileType.CHARACTER) else Status.BADTYPE)
    return values.made(files.make_fifo(directory, name, values.changes(reader), caller, socket=kind == FileType.SOCKET))


def _remove(files: Files, reader: Reader, caller: Caller) -> Writer:
    return values.both(Writer().u32(Status.OK), *files.remove(values.handle(reader), values.name(reader), tree=False))


def _rmdir(files: Files, reader: Reader, caller: Caller) -> Writer:
    return values.both(Writer().u32(Status.OK), *files.remove(values.handle(reader), values.name(reader), tree=True))


def _rename(files: Files, reader: Reader, caller: Caller) -> Writer:
    source, name, target, new = values.handle(reader), values.name(reader), values.handle(reader), values.name(reader)
    all_four = files.rename(source, name, target, new)
    return values.both(values.both(Writer().u32(Status.OK), *all_four[:2]), *all_four[2:])


def _link(files: Files, reader: Reader, caller: Caller) -> Writer:
    attributes, before, after = files.link(values.handle(reader), values.handle(reader), values.name(reader))
    return values.both(values.after(Writer().u32(Status.OK), attributes), before, after)


def _readdir(files: Files, reader: Reader, caller: Caller) -> Writer:
    handle, cookie = values.handle(reader), reader.u64()
    reader.fixed(8)
    limit = min(reader.u32(), protocol.DIRECTORY_LIMIT)
    return _list(files, handle, cookie, limit, limit, plus=False)


def _readdirplus(files: Files, reader: Reader, caller: Caller) -> Writer:
    handle, cookie = values.handle(reader), reader.u64()
    reader.fixed(8)
    names, limit = reader.u32(), min(reader.u32(), protocol.DIRECTORY_LIMIT)
    return _list(files, handle, cookie, min(names, limit), limit, plus=True)


def _list(files: Files, handle: bytes, cookie: int, names_limit: int, limit: int, *, plus: bool) -> Writer:
    """Entries behind `cookie`: names and cookies in `names_limit` bytes, the whole result in `limit`."""
    own, parent, entries = files.list(handle, cookie)
    out = values.after(Writer().u32(Status.OK), own).fixed(bytes(8))
    special = [(1, b".", own.st_ino), (2, b"..", parent)]
    names = 0
    full = False
    for number, name, inode in [(c, n, i) for c, n, i in special if c > cookie] + [(c, n, 0) for c, n in entries]:
        size = 24 + len(name) + -len(name) % 4
        if names + size > names_limit or out.length + size + (160 if plus else 0) + 8 > limit:
            full = True
            break
        found = None
        if number > 2 and (plus or not inode):
            found = files.entry(handle, name)
            if found is None:
                continue
        out.boolean(True).u64(found[1].st_ino if found else inode).opaque(name).u64(number)
        names += size
        if plus:
            if found:
                values.after(out, found[1]).boolean(True).opaque(found[0])
            else:
                out.u32(0, 0)
    if full and not names:
        raise Refusal(Status.TOOSMALL)
    return out.boolean(False).boolean(not full)


def _fsstat(files: Files, reader: Reader, caller: Caller) -> Writer:
    status, attributes = files.file_system(values.handle(reader))
    out = values.after(Writer().u32(Status.OK), attributes)
    size = status.f_frsize
    out.u64(status.f_blocks * size, status.f_bfree * size, status.f_bavail * size)
    return out.u64(status.f_files, status.f_ffree, status.f_favail).u32(0)


def _fsinfo(files: Files, reader: Reader, caller: Caller) -> Writer:
    out = values.after(Writer().u32(Status.OK), files.attributes(values.handle(reader)))
    data = protocol.DATA_LIMIT
    out.u32(data, data, 4096, data, data, 4096, 64 << 10).u64((1 << 63) - 1).u32(0, 1)
    return out.u32(0x01 | 0x02 | 0x08 | 0x10)  # hard links, symbolic links, one answer for all, times can be set


def _pathconf(files: Files, reader: Reader, caller: Caller) -> Writer:
    out = values.after(Writer().u32(Status.OK), files.attributes(values.handle(reader)))
    out.u32(65000, protocol.NAME_LIMIT)
    return out.boolean(True).boolean(True).boolean(False).boolean(True)


def _commit(files: Files, reader: Reader, caller: Caller) -> Writer:
    attributes, verifier = files.commit(values.handle(reader))
    return values.both(Writer().u32(Status.OK), attributes, attributes).fixed(verifier)


_WORK: dict[Procedure, Work] = {
    _P.NULL: _null, _P.GETATTR: _getattr, _P.SETATTR: _setattr, _P.LOOKUP: _lookup, _P.ACCESS: _access,
    _P.READLINK: _readlink, _P.READ: _read, _P.WRITE: _write, _P.CREATE: _create, _P.MKDIR: _mkdir,
    _P.SYMLINK: _symlink, _P.MKNOD: _mknod, _P.REMOVE: _remove, _P.RMDIR: _rmdir, _P.RENAME: _rename,
    _P.LINK: _link, _P.READDIR: _readdir, _P.READDIRPLUS: _readdirplus, _P.FSSTAT: _fsstat, _P.FSINFO: _fsinfo,
    _P.PATHCONF: _pathconf, _P.COMMIT: _commit,
}  # fmt: skip
PROCEDURES = {protocol.NFS_PROGRAM: frozenset(Procedure), protocol.MOUNT_PROGRAM: frozenset(MountProcedure)}
