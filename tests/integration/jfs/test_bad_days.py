"""Restarts, killed processes, and guests that mean harm."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mags.host.jfs import Export, Exports, Permit
from mags.host.jfs.protocol import MOUNT_PROGRAM, NFS_PROGRAM, CreateMode, Procedure, Status
from mags.host.jfs.rpc import GARBAGE_ARGS, LAST, PROC_UNAVAIL, PROG_MISMATCH, PROG_UNAVAIL
from mags.host.jfs.xdr import Writer
from mags.host.storage.engine import Engine
from tests.integration.jfs.client import Client, Refused, changes, entry
from tests.integration.jfs.test_files import refused


async def test_handles_outlive_the_server_and_the_mount(
    place: Path, engine: Engine, exports: Exports, client: Client, directory: Path
) -> None:
    folder = await client.mkdir(client.root, b"d")
    handle = await client.create(folder, b"f")
    verifier = await client.write(handle, 0, b"kept")
    await client.commit(handle)
    await exports.close()
    await engine.close(unmount=True)
    engine = await Engine.open(engine.settings, place / "host", host_id="h1")
    again = await Exports.open(place)
    assert again.port == exports.port
    export = await again.add("vm", "127.0.0.1", directory)
    other = await Client.connect("127.0.0.1", export.port, mount=False)
    assert (await other.read(handle, 0, 10))[0] == b"kept"
    assert await other.write(handle, 4, b" too") != verifier  # what was uncommitted is to be sent again
    assert await other.lookup(folder, b"..") == client.root
    await other.commit(handle)
    await other.aclose()
    await again.close()
    await engine.close(unmount=True)


async def test_a_port_that_somebody_has_taken_is_given_up(tmp_path: Path) -> None:
    first = await Exports.open(tmp_path)
    await first.close()
    with socket.socket() as other:
        other.bind(("", first.port))
        other.listen()
        second = await Exports.open(tmp_path)
        await second.close()
        assert second.port != first.port
    third = await Exports.open(tmp_path)
    await third.close()
    assert third.port == second.port


async def test_killed_volume_loses_nothing_that_a_client_sends_again(
    engine: Engine, client: Client, directory: Path
) -> None:
    handle = await client.create(client.root, b"f")
    first = await client.write(handle, 0, b"uncommitted")
    for pid in engine.mount._processes():
        os.kill(pid, signal.SIGKILL)

    async def patiently(ask: Callable[[], Awaitable[bytes]]) -> bytes:
        async with asyncio.timeout(60):
            while True:
                try:
                    return await ask()
                except Refused as refusal:
                    assert refusal.status is Status.JUKEBOX
                    await asyncio.sleep(0.1)

    # What a kernel does: while the verifier is not the one of its writes, it writes and commits again.
    second = await patiently(lambda: client.commit(handle))
    assert second != first
    while second != first:
        first = await patiently(lambda: client.write(handle, 0, b"uncommitted"))
        second = await patiently(lambda: client.commit(handle))
    assert (directory / "f").read_bytes() == b"uncommitted"


async def test_many_writers_at_once(export: Export, directory: Path) -> None:
    async def one(number: int) -> None:
        client = await Client.connect("127.0.0.1", export.port)
        try:
            for step in range(10):
                handle = await client.create(client.root, b"%d-%d" % (number, step))
                await client.write(handle, 0, b"%d" % step * 5000)
                await client.commit(handle)
        finally:
            await client.aclose()

    await asyncio.gather(*(one(number) for number in range(4)))
    assert len(list(directory.iterdir())) == 40


async def test_more_files_than_are_kept_open(client: Client, directory: Path) -> None:
    handles = [await client.create(client.root, b"%d" % number) for number in range(150)]
    for handle in handles:
        await client.write(handle, 0, b"x")
    verifiers = {await client.commit(handle) for handle in handles}
    assert len(verifiers) == 1
    assert {path.read_bytes() for path in directory.iterdir()} == {b"x"}


async def test_forged_handles_are_refused(client: Client, exports: Exports, engine: Engine) -> None:
    handle = await client.create(client.root, b"f")
    for position in range(len(handle)):
        bad = bytearray(handle)
        bad[position] ^= 1
        with refused(Status.BADHANDLE):
            await client.getattr(bytes(bad))
    for bad_handle in (b"", b"x", handle[:16], handle + b"\0", bytes(64)):
        with refused(Status.BADHANDLE):
            await client.getattr(bad_handle)
    other_directory = engine.mount.point / "other"
    other_directory.mkdir()
    other = await exports.add("other", "127.0.0.2", other_directory)
    stranger = await Client.connect("127.0.0.2", other.port)
    with refused(Status.BADHANDLE):
        await stranger.getattr(handle)
    await stranger.aclose()


async def test_names_that_are_none(client: Client) -> None:
    file = await client.create(client.root, b"f")
    for name in (b"a/b", b"../outside", b"/etc/passwd", b"", b"a\0b"):
        for attempt in (
            client.lookup(client.root, name),
            client.create(client.root, name),
            client.mkdir(client.root, name),
            client.symlink(client.root, name, b"t"),
            client.mknod(client.root, name, 7),
            client.remove(client.root, name),
            client.rmdir(client.root, name),
            client.rename(client.root, name, client.root, b"n"),
            client.rename(client.root, b"f", client.root, name),
            client.link(file, client.root, name),
        ):
            with refused(Status.INVAL):
                await attempt


async def test_special_names_are_not_made_or_removed(client: Client) -> None:
    for name in (b".", b".."):
        for attempt in (
            client.create(client.root, name, how=CreateMode.UNCHECKED, size=0),
            client.rmdir(client.root, name),
            client.rename(client.root, name, client.root, b"n"),
        ):
            with refused(Status.EXIST):
                await attempt
    with refused(Status.NAMETOOLONG):
        await client.create(client.root, b"x" * 256)


async def test_links_are_never_followed(client: Client, directory: Path, engine: Engine) -> None:
    outside = engine.mount.point / "outside"
    for number, target in enumerate((str(outside), "../outside", "/etc/passwd", "/proc/self/root")):
        name = b"link-%d" % number
        link = await client.symlink(client.root, name, target.encode())
        assert await client.lookup(client.root, name) == link
        for attempt in (client.read(link, 0, 100), client.write(link, 0, b"x"), client.setattr(link, changes(size=0))):
            with refused(Status.INVAL):
                await attempt
        with pytest.raises(Refused):
            await client.setattr(link, changes(mode=0o777))
        with pytest.raises(Refused):
            await client.lookup(link, b"passwd")
        with refused(Status.EXIST):
            await client.create(client.root, name, size=0)
        with pytest.raises(Refused):
            await client.link(link, client.root, b"hard")
        await client.setattr(link, changes(uid=7, mtime=5))
        await client.remove(client.root, name)
    status = outside.stat()
    assert outside.read_text() == "secret" and status.st_uid == 0 and status.st_mtime > 1000


async def test_directories_are_not_read_nor_written(client: Client) -> None:
    folder = await client.mkdir(client.root, b"d")
    for attempt in (client.read(folder, 0, 1), client.write(folder, 0, b"x"), client.link(folder, client.root, b"l")):
        with refused(Status.ISDIR):
            await attempt


async def test_bounds(client: Client) -> None:
    handle = await client.create(client.root, b"f")
    with refused(Status.FBIG):
        await client.read(handle, 1 << 63, 1)
    with refused(Status.FBIG):
        await client.write(handle, (1 << 64) - 1, b"x")
    data, _ = await client.read(handle, 0, (1 << 32) - 1)
    assert data == b""
    with pytest.raises(Refused):
        await client.write(handle, (1 << 63) - 2, b"1234")


async def test_unknown_programs_versions_and_procedures(client: Client) -> None:
    for program, version, procedure, wanted in (
        (100227, 3, 0, PROG_UNAVAIL),
        (NFS_PROGRAM, 4, 0, PROG_MISMATCH),
        (MOUNT_PROGRAM, 1, 1, PROG_MISMATCH),
        (NFS_PROGRAM, 3, 22, PROC_UNAVAIL),
        (MOUNT_PROGRAM, 3, 6, PROC_UNAVAIL),
        (NFS_PROGRAM, 3, 1, GARBAGE_ARGS),
    ):
        status, _ = await client.receive(client.send(procedure, b"", program=program, version=version))
        assert status == wanted
    with pytest.raises(Refused, match="NOENT"):
        await client.mount(b"/etc")
    for procedure in (0, 2, 3, 4, 5):
        status, _ = await client.receive(client.send(procedure, b"", program=MOUNT_PROGRAM))
        assert status == 0


async def test_broken_records_end_the_connection_and_nothing_else(export: Export, client: Client) -> None:
    for bad in (
        struct.pack(">I", LAST | 5) + b"abcde",
        struct.pack(">I", LAST | (64 << 20)),
        struct.pack(">I", 0) * 100,
        struct.pack(">I", LAST | 40) + struct.pack(">10I", 1, 1, 2, 3, 4, 5, 6, 7, 8, 9),
        struct.pack(">I", LAST | 44) + Writer().u32(1, 0, 2, NFS_PROGRAM, 3, 0, 1, 1 << 31, 0, 0, 0).done(),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", export.port)
        writer.write(bad)
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()
    await client.getattr(client.root)


async def test_garbage_never_breaks_the_server(export: Export, client: Client, directory: Path) -> None:
    """Random arguments for every procedure, near to right ones: each gets an answer, and nothing leaves the export."""
    chance = random.Random(3)
    handle = await client.create(client.root, b"f")
    bodies = {
        procedure: entry(client.root, b"name")
        + changes(mode=0o600)
        + Writer().opaque(handle).u64(chance.randrange(1 << 63)).u32(4, 0).opaque(b"data").done()
        for procedure in Procedure
    }
    for _ in range(60):
        pending = []
        for procedure, body in bodies.items():
            bad = bytearray(body)
            for _ in range(chance.randrange(4)):
                bad[chance.randrange(len(bad))] = chance.choice((0, 1, 255, chance.randrange(256)))
            del bad[chance.randrange(len(bad)) if chance.random() < 0.3 else len(bad) :]
            pending.append(client.send(procedure, bytes(bad)))
        for xid in pending:
            status, _ = await client.receive(xid)
            assert status in (0, GARBAGE_ARGS)
    assert {path.name for path in directory.parent.iterdir() if path.name[0] != "."} == {"jfs", "outside"}
    await client.getattr(client.root)


async def test_guest_that_does_not_read_is_slowed(export: Export) -> None:
    client = await Client.connect("127.0.0.1", export.port)
    handle = await client.create(client.root, b"big")
    await client.write(handle, 0, bytes(1 << 20))
    await client.commit(handle)
    body = Writer().opaque(handle).u64(0).u32(1 << 20).done()
    last = [client.send(Procedure.READ, body) for _ in range(100)][-1]
    await asyncio.sleep(0.3)
    status, _ = await client.receive(last)
    assert status == 0
    await client.aclose()


async def test_without_a_permit_nothing_changes_and_the_guest_asks_again(exports: Exports, directory: Path) -> None:
    allowed = Permit.FREELY
    export = await exports.add("vm", "127.0.0.1", directory, permit=lambda: allowed)
    client = await Client.connect("127.0.0.1", export.port)
    file = await client.create(client.root, b"f")
    await client.write(file, 0, b"before")
    await client.commit(file)
    allowed = Permit.NO
    for change in (
        client.write(file, 0, b"behind"),
        client.commit(file),
        client.create(client.root, b"g"),
        client.setattr(file, changes(size=0)),
        client.remove(client.root, b"f"),
        client.rename(client.root, b"f", client.root, b"g"),
        client.mkdir(client.root, b"d"),
    ):
        with refused(Status.JUKEBOX):
            await change
    assert (await client.read(file, 0, 10))[0] == b"before"
    assert sorted(await client.list(client.root)) == [b".", b"..", b"f"]
    allowed = Permit.FREELY
    await client.write(file, 0, b"behind")
    await client.aclose()


async def test_what_may_be_another_s_in_a_moment_is_stored_at_once(
    engine: Engine, exports: Exports, directory: Path
) -> None:
    def stored() -> int:
        return sum(path.stat().st_size for path in engine.volume.blocks.rglob("chunks/**/*") if path.is_file())

    export = await exports.add("vm", "127.0.0.1", directory, permit=lambda: Permit.AT_ONCE)
    client = await Client.connect("127.0.0.1", export.port)
    file = await client.create(client.root, b"f")
    before = stored()
    await client.write(file, 0, os.urandom(100_000))
    assert stored() >= before + 100_000
    await client.aclose()
