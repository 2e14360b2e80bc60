"""What a well-behaved client gets."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mags.host.jfs import Export
from mags.host.jfs.protocol import Access, CreateMode, Procedure, Status
from mags.host.jfs.xdr import Writer
from tests.integration.jfs.client import Client, Refused, changes, optional


def refused(status: Status) -> pytest.RaisesExc[Refused]:
    return pytest.raises(Refused, match=f"^{status.name}$")


async def test_an_export_knows_the_handle_that_mount_gives(client: Client, export: Export) -> None:
    assert export.handle == client.root != b""


async def test_written_and_committed_bytes_are_on_the_volume(client: Client, directory: Path) -> None:
    handle = await client.create(client.root, b"file", mode=0o640)
    data = os.urandom(300_000)
    verifier = await client.write(handle, 0, data)
    await client.write(handle, 300_000, b"tail")
    assert await client.commit(handle) == verifier
    assert (directory / "file").read_bytes() == data + b"tail"
    assert await client.read(handle, 299_999, 100) == (data[-1:] + b"tail", True)
    assert await client.read(handle, 0, 10) == (data[:10], False)
    assert await client.read(handle, 1 << 40, 10) == (b"", True)
    found = await client.getattr(handle)
    assert (found.kind, found.mode, found.size, found.uid, found.gid) == (1, 0o640, 300_004, 0, 0)


async def test_stable_write_needs_no_commit(client: Client, directory: Path) -> None:
    handle = await client.create(client.root, b"file")
    await client.write(handle, 5, b"x", stable=2)
    assert (directory / "file").read_bytes() == bytes(5) + b"x"


async def test_attributes_can_be_set(client: Client, directory: Path) -> None:
    handle = await client.create(client.root, b"file")
    await client.write(handle, 0, b"0123456789")
    after = await client.setattr(handle, changes(mode=0o4711, size=4, uid=12, mtime=1234567))
    assert after is not None and (after.mode & 0o777, after.size, after.uid, after.mtime) == (0o711, 4, 12, 1234567)
    assert (directory / "file").read_bytes() == b"0123"
    await client.setattr(handle, changes(size=8))
    assert (await client.read(handle, 0, 100))[0] == b"0123\0\0\0\0"
    with refused(Status.NOT_SYNC):
        await client.setattr(handle, changes(mode=0o600), guard=(1, 1))
    await client.setattr(handle, changes(mode=0o600), guard=(await client.getattr(handle)).ctime)


async def test_owner_of_what_is_made_is_the_caller(client: Client, directory: Path) -> None:
    client.uid, client.gid = 1000, 1001
    await client.create(client.root, b"f")
    await client.mkdir(client.root, b"d")
    await client.symlink(client.root, b"l", b"f")
    for name in ("f", "d", "l"):
        status = os.lstat(directory / name)
        assert (status.st_uid, status.st_gid) == (1000, 1001)


async def test_three_ways_to_create(client: Client) -> None:
    first = await client.create(client.root, b"f")
    await client.write(first, 0, b"12345")
    assert await client.create(client.root, b"f") == first
    with refused(Status.EXIST):
        await client.create(client.root, b"f", how=CreateMode.GUARDED)
    assert (await client.getattr(first)).size == 5
    await client.create(client.root, b"f", size=0)
    assert (await client.getattr(first)).size == 0
    token = os.urandom(8)
    once = await client.create(client.root, b"g", how=CreateMode.EXCLUSIVE, token=token)
    assert await client.create(client.root, b"g", how=CreateMode.EXCLUSIVE, token=token) == once
    with refused(Status.EXIST):
        await client.create(client.root, b"g", how=CreateMode.EXCLUSIVE, token=bytes(8))
    await client.mkdir(client.root, b"d")
    with refused(Status.EXIST):
        await client.create(client.root, b"d")


async def test_directories_links_and_names(client: Client, directory: Path) -> None:
    one = await client.mkdir(client.root, b"one", mode=0o700)
    two = await client.mkdir(one, b"two")
    file = await client.create(two, b"f")
    await client.link(file, one, b"hard")
    assert (await client.getattr(file)).links == 2
    await client.rename(two, b"f", client.root, "ü f".encode())
    assert (directory / "ü f").exists()
    assert await client.lookup(client.root, "ü f".encode()) == file
    link = await client.symlink(one, b"link", b"../../../etc/passwd")
    assert await client.readlink(link) == b"../../../etc/passwd"
    assert (await client.getattr(link)).kind == 5
    with refused(Status.NOTEMPTY):
        await client.rmdir(client.root, b"one")
    with refused(Status.NOTDIR):
        await client.rmdir(one, b"hard")
    await client.remove(one, b"hard")
    await client.remove(one, b"link")
    await client.rmdir(one, b"two")
    await client.rmdir(client.root, b"one")
    with refused(Status.NOENT):
        await client.lookup(client.root, b"one")
    with refused(Status.STALE):
        await client.getattr(two)


async def test_dots_lead_no_further_than_the_root(client: Client) -> None:
    one = await client.mkdir(client.root, b"one")
    two = await client.mkdir(one, b"two")
    assert await client.lookup(two, b"..") == one
    assert await client.lookup(one, b".") == one
    assert await client.lookup(client.root, b"..") == client.root
    assert await client.walk("one/two/../../../../one") == one


async def test_special_files(client: Client, directory: Path) -> None:
    await client.mknod(client.root, b"fifo", 7)
    await client.mknod(client.root, b"socket", 6)
    assert stat.S_ISFIFO(os.lstat(directory / "fifo").st_mode)
    assert stat.S_ISSOCK(os.lstat(directory / "socket").st_mode)
    fifo = await client.lookup(client.root, b"fifo")
    with refused(Status.INVAL):
        await client.read(fifo, 0, 1)
    for kind in (3, 4):
        with refused(Status.PERM):
            await client.mknod(client.root, b"device", kind)
    with refused(Status.BADTYPE):
        await client.mknod(client.root, b"x", 1)


async def test_access_follows_the_mode(client: Client) -> None:
    file = await client.create(client.root, b"f", mode=0o640)
    await client.setattr(file, changes(uid=5))
    assert await client.access(file) == Access.READ | Access.MODIFY | Access.EXTEND
    client.uid = 5
    assert await client.access(file, Access.READ) == Access.READ
    client.uid = 6
    assert await client.access(file) == Access.READ  # by its group
    client.gid = 7
    assert await client.access(file) == 0
    assert (
        await client.access(client.root) & (Access.LOOKUP | Access.READ | Access.DELETE) == Access.LOOKUP | Access.READ
    )


async def test_long_directories_come_in_pieces_and_bear_changes(client: Client, directory: Path) -> None:
    names = {f"file-{number:04}".encode() for number in range(700)}
    for name in names:
        (directory / name.decode()).touch()
    listed = await client.list(client.root)
    assert set(listed) - {b".", b".."} == names and len(listed) == 702
    plus = await client.list_plus(client.root)
    assert set(plus) == set(listed)
    attributes, handle = plus[b"file-0001"]
    assert attributes == await client.getattr(handle)
    for name in listed:  # as `rm -r` does: cookies of before stay valid
        if name not in (b".", b".."):
            await client.remove(client.root, name)
    assert set(await client.list(client.root)) == {b".", b".."}
    with refused(Status.TOOSMALL):
        await client.list(client.root, count=8)


async def test_what_the_file_system_says_of_itself(client: Client) -> None:
    root = Writer().opaque(client.root).done()
    reader = await client.call(Procedure.FSSTAT, root)
    assert optional(reader) is not None and reader.u64() > 0
    reader = await client.call(Procedure.FSINFO, root)
    optional(reader)
    assert reader.u32() == 1 << 20
    reader = await client.call(Procedure.PATHCONF, root)
    optional(reader)
    assert (reader.u32(), reader.u32()) == (65000, 255)
    await client.call(Procedure.NULL)


async def test_request_that_is_sent_again_is_not_done_again(client: Client) -> None:
    await client.create(client.root, b"f")
    await client.remove(client.root, b"f", xid=77)
    await client.create(client.root, b"f")
    await client.remove(client.root, b"f", xid=77)
    await client.lookup(client.root, b"f")
