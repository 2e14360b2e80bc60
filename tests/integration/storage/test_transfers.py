"""Workspaces as tar files, there and back, and tar files that mean harm."""

from __future__ import annotations

import asyncio
import io
import os
import random
import stat
import tarfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from mags.host.storage import layout
from mags.host.storage.archives import BadArchive
from mags.host.storage.engine import Engine
from mags.host.storage.errors import GenerationMissing
from mags.host.storage.layout import Manifest
from mags.host.storage.transfers import bring, export
from mags.protocol.ids import new_id
from mags.protocol.messages import Attachment
from tests.integration.storage.test_workspaces import SPOT, read, write

LIMIT = 1 << 30


async def bytes_of(engine: Engine, workspace: str) -> bytes:
    return b"".join([chunk async for chunk in export(engine.workspaces, workspace)])


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def brought(engine: Engine, data: bytes, *, limit: int = LIMIT) -> Manifest:
    return await bring(engine.workspaces, new_id(), pieces(data), owner="p", name="copy", limit=limit)


async def made(engine: Engine) -> str:
    """A workspace with a disk and all kinds of files in /jfs."""
    workspace = new_id()
    attached = await engine.workspaces.attach(
        Attachment(workspace_id=workspace, epoch=5, disk_gb=1), vm_id=new_id(), owner="o", name="w", image="alpine"
    )
    await write(attached, b"on the disk")
    await attached.committed(1)
    jfs = attached.jfs
    (jfs / "d" / "e").mkdir(parents=True)
    (jfs / "d" / "e" / "ü f").write_bytes(os.urandom(5000))
    os.link(jfs / "d" / "e" / "ü f", jfs / "hard")
    (jfs / "soft").symlink_to("/etc/passwd")
    os.mkfifo(jfs / "fifo")
    os.chown(jfs / "d" / "e" / "ü f", 12, 34)
    (jfs / "d" / "e" / "ü f").chmod(0o4751)
    (jfs / "d").chmod(0o500)
    os.utime(jfs / "d", (1000, 2000))
    return workspace


async def test_there_and_back(engine: Engine) -> None:
    workspace = await made(engine)
    data = await bytes_of(engine, workspace)
    assert len(data) < 10 << 20  # a disk of 1 GiB, nearly empty
    manifest = await brought(engine, data)
    assert (manifest.owner, manifest.name, manifest.disk_gb, manifest.image, manifest.generation) == (
        "p", "copy", 1, "alpine", 1,
    )  # fmt: skip
    one, two = engine.workspaces.of(workspace), engine.workspaces.of(manifest.id)
    assert read(two.path(1), 11) == b"on the disk"
    assert read(two.path(1), 4 << 20, offset=0) == read(one.path(1), 4 << 20, offset=0)
    file = two.jfs / "d" / "e" / "ü f"
    assert file.read_bytes() == (one.jfs / "d" / "e" / "ü f").read_bytes()
    status = file.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), status.st_nlink) == (12, 34, 0o4751, 2)
    assert (two.jfs / "hard").stat().st_ino == status.st_ino
    assert str((two.jfs / "soft").readlink()) == "/etc/passwd"
    assert stat.S_ISFIFO((two.jfs / "fifo").stat().st_mode)
    folder = (two.jfs / "d").stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_mtime) == (0o500, 2000)
    again = await engine.workspaces.attach(
        Attachment(workspace_id=manifest.id, epoch=1, generation=1, disk_gb=1), vm_id=new_id()
    )
    await write(again, b"goes on", offset=SPOT)
    assert one.leases().keys() - {again.vm_id} and not [v for v in two.leases() if v != again.vm_id]


async def test_workspace_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(GenerationMissing):
        await bytes_of(engine, new_id())


async def test_reader_that_goes_away_ends_the_export(engine: Engine) -> None:
    workspace = await made(engine)
    before = set(engine.workspaces.of(workspace).leases())
    async with aclosing(export(engine.workspaces, workspace)) as chunks:
        async for _ in chunks:
            assert set(engine.workspaces.of(workspace).leases()) != before
            break
    assert set(engine.workspaces.of(workspace).leases()) == before


Member = tuple[str, bytes, dict[str, object]]


def archive(*members: Member, disk_gb: int = 1) -> bytes:
    """A tar file of a manifest and these members: name, bytes, attributes of its header."""
    out = io.BytesIO()
    manifest = msgspec.json.encode(Manifest(id="x", disk_gb=disk_gb))
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data, attributes in (("mags-workspace.json", manifest, {}), *members):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in attributes.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


LINK: Member = ("jfs/l", b"", {"type": tarfile.SYMTYPE, "linkname": "/tmp"})
HARM = {
    "empty": b"",
    "no tar": b"hello" * 1000,
    "no manifest": archive()[2048:] + bytes(10240),
    "above": archive(("jfs/../../x", b"x", {})),
    "absolute": archive(("/etc/x", b"x", {})),
    "dots": archive(("jfs/./x", b"x", {})),
    "nothing": archive(("jfs/", b"", {"type": tarfile.DIRTYPE})),
    "elsewhere": archive(("leases/x", b"x", {})),
    "through a link": archive(LINK, ("jfs/l/x", b"x", {})),
    "over a link": archive(LINK, ("jfs/l", b"x", {})),
    "hard link out": archive(("jfs/h", b"", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})),
    "hard link above": archive(("jfs/h", b"", {"type": tarfile.LNKTYPE, "linkname": "jfs/../workspace.json"})),
    "hard link through a link": archive(LINK, ("jfs/h", b"", {"type": tarfile.LNKTYPE, "linkname": "jfs/l/x"})),
    "device": archive(("jfs/d", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})),
    "in a file": archive(("jfs/f", b"", {}), ("jfs/f/x", b"x", {})),
    "twice": archive(("jfs/f", b"1", {}), ("jfs/f", b"2", {})),
    "long name": archive((f"jfs/{'x' * 300}", b"1", {})),
    "disk behind its end": archive((f"disk/{1 << 30:016x}", b"x", {})),
    "piece too large": archive((f"disk/{0:016x}", bytes(5 << 20), {})),
    "disk link": archive((f"disk/{0:016x}", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})),
    "huge disk": archive(disk_gb=1 << 40),
    "cut": archive(("jfs/f", bytes(9000), {}))[:6000],
}


async def test_harmful_archives_leave_nothing(engine: Engine) -> None:
    top = engine.mount.point / "workspaces"
    for name, data in HARM.items():
        try:
            await brought(engine, data)
            pytest.fail(f"taken: {name}")
        except BadArchive:
            assert not list(top.iterdir()), name


async def test_import_that_is_called_off_leaves_nothing(engine: Engine) -> None:
    """Though its sender sends no more and does not end either."""
    good, sent = archive(("jfs/f", bytes(300_000), {})), asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield good[:200_000]
        sent.set()
        await asyncio.Event().wait()

    bringing = asyncio.create_task(bring(engine.workspaces, new_id(), stuck(), owner="p", name="c", limit=LIMIT))
    async with asyncio.timeout(60):
        await sent.wait()
        bringing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bringing
    assert not list((engine.mount.point / "workspaces").iterdir())


async def test_export_of_a_generation_that_was_replaced_meanwhile_is_of_the_newest(engine: Engine) -> None:
    workspace = await made(engine)
    generations = engine.workspaces.of(workspace)
    manifest = generations.manifest()
    assert manifest is not None
    generations.path(1).rename(generations.directory / layout.generation_name(2))
    manifest.generation = 2
    generations.write_manifest(manifest)
    data = b"".join([chunk async for chunk in export(engine.workspaces, workspace, 1)])
    assert read(engine.workspaces.of((await brought(engine, data)).id).path(1), 11) == b"on the disk"


async def test_archives_are_bounded(engine: Engine) -> None:
    with pytest.raises(BadArchive, match="larger"):
        await brought(engine, archive(*((f"jfs/{n}", bytes(1000), {}) for n in range(30))), limit=20_000)


async def test_damaged_archives_never_do_more_than_raise(engine: Engine, place: Path) -> None:
    chance = random.Random(2)
    good = archive(
        ("jfs/d", b"", {"type": tarfile.DIRTYPE}),
        ("jfs/d/f", b"x" * 600, {}),
        LINK,
        (f"disk/{0:016x}", b"y" * 4096, {}),
    )
    outside = {path.name for path in place.iterdir()}
    for _ in range(40):
        bad = bytearray(good)
        for _ in range(chance.randrange(1, 8)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        try:
            await asyncio.wait_for(brought(engine, bytes(bad)), 60)
        except BadArchive:
            pass
    assert {path.name for path in place.iterdir()} == outside
