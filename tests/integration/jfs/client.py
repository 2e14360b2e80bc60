"""A small NFSv3 client: builds calls by hand, as a guest that means us harm would."""

from __future__ import annotations

import asyncio
import itertools
import struct
from dataclasses import dataclass

from mags.host.jfs.protocol import MOUNT_PROGRAM, NFS_PROGRAM, CreateMode, Procedure, Status
from mags.host.jfs.rpc import LAST, RecordReader
from mags.host.jfs.xdr import Reader, Writer


class Refused(Exception):
    """The server answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(Status(status).name)
        self.status = Status(status)


@dataclass(frozen=True)
class Attributes:
    kind: int
    mode: int
    links: int
    uid: int
    gid: int
    size: int
    number: int
    mtime: int
    ctime: tuple[int, int]


def attributes(reader: Reader) -> Attributes:
    kind, mode, links, uid, gid = (reader.u32() for _ in range(5))
    size, _used = reader.u64(), reader.u64()
    reader.u64()
    reader.u64()
    number = reader.u64()
    times = [(reader.u32(), reader.u32()) for _ in range(3)]
    return Attributes(kind, mode, links, uid, gid, size, number, times[1][0], times[2])


def optional(reader: Reader) -> Attributes | None:
    return attributes(reader) if reader.boolean() else None


def wcc(reader: Reader) -> Attributes | None:
    if reader.boolean():
        reader.fixed(24)
    return optional(reader)


def changes(
    *, mode: int | None = None, size: int | None = None, uid: int | None = None, mtime: int | None = None
) -> bytes:
    out = Writer()
    for value in (mode, uid, None):
        out.u32(0) if value is None else out.u32(1, value)
    out.u32(0) if size is None else out.u32(1).u64(size)
    out.u32(0)
    out.u32(0) if mtime is None else out.u32(2, mtime, 5)
    return out.done()


class Client:
    """One connection. `uid` and `gid` are who it says it is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.uid, self.gid = 0, 0
        self.root = b""
        self._records = RecordReader()
        self._got: dict[int, bytes] = {}
        self._xids = itertools.count(1)

    @classmethod
    async def connect(cls, address: str, port: int, *, mount: bool = True) -> Client:
        client = cls(*await asyncio.open_connection(address, port))
        if mount:
            client.root = await client.mount(b"/jfs")
        return client

    async def aclose(self) -> None:
        self.writer.close()

    def send(self, procedure: int, body: bytes, *, program: int = NFS_PROGRAM, version: int = 3, xid: int = 0) -> int:
        xid = xid or next(self._xids)
        credentials = Writer().u32(0).opaque(b"test").u32(self.uid, self.gid, 0).done()
        head = Writer().u32(xid, 0, 2, program, version, procedure, 1).opaque(credentials).u32(0, 0).done()
        self.writer.write(struct.pack(">I", LAST | len(head) + len(body)) + head + body)
        return xid

    async def receive(self, xid: int) -> tuple[int, Reader]:
        """The accept status and the results."""
        async with asyncio.timeout(60):
            while xid not in self._got:
                data = await self.reader.read(1 << 16)
                if not data:
                    raise ConnectionResetError
                for message in self._records.feed(data):
                    self._got[struct.unpack_from(">I", message)[0]] = message
        reader = Reader(self._got.pop(xid))
        assert [reader.u32() for _ in range(5)][1:3] == [1, 0]
        return reader.u32(), reader

    async def call(self, procedure: int, body: bytes = b"", *, program: int = NFS_PROGRAM, xid: int = 0) -> Reader:
        status, reader = await self.receive(self.send(procedure, body, program=program, xid=xid))
        assert status == 0, status
        if procedure == 0:
            return reader
        if result := reader.u32():
            raise Refused(result)
        return reader

    async def mount(self, path: bytes) -> bytes:
        reader = await self.call(1, Writer().opaque(path).done(), program=MOUNT_PROGRAM)
        return reader.opaque(64)

    async def getattr(self, handle: bytes) -> Attributes:
        return attributes(await self.call(Procedure.GETATTR, Writer().opaque(handle).done()))

    async def setattr(self, handle: bytes, what: bytes, *, guard: tuple[int, int] | None = None) -> Attributes | None:
        tail = Writer().u32(0) if guard is None else Writer().u32(1, *guard)
        return wcc(await self.call(Procedure.SETATTR, Writer().opaque(handle).raw(what).raw(tail.done()).done()))

    async def lookup(self, directory: bytes, name: bytes) -> bytes:
        return (await self.call(Procedure.LOOKUP, entry(directory, name))).opaque(64)

    async def walk(self, path: str) -> bytes:
        handle = self.root
        for name in path.encode().split(b"/"):
            handle = await self.lookup(handle, name)
        return handle

    async def access(self, handle: bytes, wanted: int = 0x3F) -> int:
        reader = await self.call(Procedure.ACCESS, Writer().opaque(handle).u32(wanted).done())
        optional(reader)
        return reader.u32()

    async def readlink(self, handle: bytes) -> bytes:
        reader = await self.call(Procedure.READLINK, Writer().opaque(handle).done())
        optional(reader)
        return reader.opaque(4096)

    async def read(self, handle: bytes, offset: int, count: int) -> tuple[bytes, bool]:
        reader = await self.call(Procedure.READ, Writer().opaque(handle).u64(offset).u32(count).done())
        optional(reader)
        reader.u32()
        end = reader.boolean()
        return reader.opaque(1 << 20), end

    async def write(self, handle: bytes, offset: int, data: bytes, *, stable: int = 0) -> bytes:
        """The server's verifier."""
        body = Writer().opaque(handle).u64(offset).u32(len(data), stable).opaque(data).done()
        reader = await self.call(Procedure.WRITE, body)
        wcc(reader)
        assert reader.u32() == len(data)
        reader.u32()
        return reader.fixed(8)

    async def commit(self, handle: bytes) -> bytes:
        """The server's verifier."""
        reader = await self.call(Procedure.COMMIT, Writer().opaque(handle).u64(0).u32(0).done())
        wcc(reader)
        return reader.fixed(8)

    async def create(
        self, directory: bytes, name: bytes, *, how: CreateMode = CreateMode.UNCHECKED, mode: int | None = 0o644,
        size: int | None = None, token: bytes = b"",
    ) -> bytes:  # fmt: skip
        tail = token if how is CreateMode.EXCLUSIVE else changes(mode=mode, size=size)
        return made(await self.call(Procedure.CREATE, entry(directory, name) + Writer().u32(how).raw(tail).done()))

    async def mkdir(self, directory: bytes, name: bytes, *, mode: int = 0o755) -> bytes:
        return made(await self.call(Procedure.MKDIR, entry(directory, name) + changes(mode=mode)))

    async def symlink(self, directory: bytes, name: bytes, target: bytes) -> bytes:
        body = entry(directory, name) + changes() + Writer().opaque(target).done()
        return made(await self.call(Procedure.SYMLINK, body))

    async def mknod(self, directory: bytes, name: bytes, kind: int) -> bytes:
        device = Writer().u32(1, 3).done() if kind in (3, 4) else b""
        body = entry(directory, name) + Writer().u32(kind).raw(changes(mode=0o666)).raw(device).done()
        return made(await self.call(Procedure.MKNOD, body))

    async def remove(self, directory: bytes, name: bytes, *, xid: int = 0) -> None:
        wcc(await self.call(Procedure.REMOVE, entry(directory, name), xid=xid))

    async def rmdir(self, directory: bytes, name: bytes) -> None:
        wcc(await self.call(Procedure.RMDIR, entry(directory, name)))

    async def rename(self, source: bytes, name: bytes, target: bytes, new: bytes) -> None:
        await self.call(Procedure.RENAME, entry(source, name) + entry(target, new))

    async def link(self, handle: bytes, directory: bytes, name: bytes) -> None:
        await self.call(Procedure.LINK, Writer().opaque(handle).done() + entry(directory, name))

    async def list(self, directory: bytes, *, count: int = 4096) -> list[bytes]:
        """All names, by as many READDIR calls as it takes."""
        names: list[bytes] = []
        cookie, end = 0, False
        while not end:
            body = Writer().opaque(directory).u64(cookie).fixed(bytes(8)).u32(count).done()
            reader = await self.call(Procedure.READDIR, body)
            optional(reader)
            reader.fixed(8)
            while reader.boolean():
                reader.u64()
                names.append(reader.opaque(255))
                cookie = reader.u64()
            end = reader.boolean()
        return names

    async def list_plus(self, directory: bytes, *, count: int = 32768) -> dict[bytes, tuple[Attributes | None, bytes]]:
        found: dict[bytes, tuple[Attributes | None, bytes]] = {}
        cookie, end = 0, False
        while not end:
            body = Writer().opaque(directory).u64(cookie).fixed(bytes(8)).u32(count, count).done()
            reader = await self.call(Procedure.READDIRPLUS, body)
            optional(reader)
            reader.fixed(8)
            while reader.boolean():
                reader.u64()
                name, cookie = reader.opaque(255), reader.u64()
                found[name] = optional(reader), reader.opaque(64) if reader.boolean() else b""
            end = reader.boolean()
        return found


def entry(directory: bytes, name: bytes) -> bytes:
    return Writer().opaque(directory).opaque(name).done()


def made(reader: Reader) -> bytes:
    assert reader.boolean()
    return reader.opaque(64)
