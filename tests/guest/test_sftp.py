"""The agent's SFTP server, by a client that others wrote."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import paramiko
import pytest

from mags.host.guest import Builtin, Channel, Exec, Process
from tests.guest.kit import TIMEOUT

T = TypeVar("T")


class Line(socket.socket):
    """A socket that paramiko takes for a channel of its own."""

    def get_name(self) -> str:
        return "line"


async def send(process: Process, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(65536):
        await process.write_stdin(data)
    await process.close_stdin()


async def receive(process: Process, writer: asyncio.StreamWriter) -> None:
    while (output := await process.next_output()) is not None:
        process.acknowledge(output.stream, output.offset + len(output.data))
        writer.write(output.data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def client(channel: Channel) -> AsyncIterator[paramiko.SFTPClient]:
    """Paramiko on one end of a socket pair, the agent's server behind the other."""
    process = await channel.exec(Exec(builtin=Builtin.SFTP, stdin=True))
    end, theirs = socket.socketpair()
    ours = Line(fileno=end.detach())
    reader, writer = await asyncio.open_connection(sock=theirs)
    async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
        group.create_task(send(process, reader))
        group.create_task(receive(process, writer))
        sftp = await asyncio.to_thread(paramiko.SFTPClient, ours)  # type: ignore[arg-type]
        yield sftp
        await asyncio.to_thread(ours.shutdown, socket.SHUT_WR)
        assert (await process.wait()).code == 0
    ours.close()


async def call(function: Callable[..., T], *arguments: object) -> T:
    return await asyncio.to_thread(function, *arguments)


async def test_a_big_file_goes_up_and_down(client: paramiko.SFTPClient, tmp_path: Path) -> None:
    data = os.urandom(2_000_000)
    (tmp_path / "up").write_bytes(data)
    await call(client.put, str(tmp_path / "up"), str(tmp_path / "there"))
    assert (tmp_path / "there").read_bytes() == data
    await call(client.get, str(tmp_path / "there"), str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == data


async def test_directories(client: paramiko.SFTPClient, tmp_path: Path) -> None:
    await call(client.mkdir, str(tmp_path / "d"), 0o750)
    for n in range(250):
        (tmp_path / "d" / f"{n}").touch()
    names = await call(client.listdir, str(tmp_path / "d"))
    assert sorted(names) == sorted(map(str, range(250)))
    attributes = {each.filename: each for each in await call(client.listdir_attr, str(tmp_path))}
    assert stat.S_ISDIR(attributes["d"].st_mode or 0)
    assert attributes["d"].longname.startswith("drwxr-x---")
    with pytest.raises(OSError, match="Directory not empty"):
        await call(client.rmdir, str(tmp_path / "d"))
    for n in range(250):
        await call(client.remove, str(tmp_path / "d" / f"{n}"))
    await call(client.rmdir, str(tmp_path / "d"))
    assert not (tmp_path / "d").exists()


async def test_attributes(client: paramiko.SFTPClient, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    await call(client.chmod, str(path), 0o640)
    await call(client.chown, str(path), 11, 22)
    await call(client.utime, str(path), (1000, 2000))
    await call(client.truncate, str(path), 4)
    found = await call(client.stat, str(path))
    assert (found.st_size, found.st_uid, found.st_gid, found.st_mtime) != (10, 0, 0, 0)
    assert (stat.S_IMODE(found.st_mode or 0), found.st_uid, found.st_gid, found.st_size) == (0o640, 11, 22, 4)
    assert path.read_bytes() == b"0123"


async def test_links_and_names(client: paramiko.SFTPClient, tmp_path: Path) -> None:
    await call(client.symlink, "target", str(tmp_path / "link"))
    assert (tmp_path / "link").readlink() == Path("target")
    assert await call(client.readlink, str(tmp_path / "link")) == "target"
    assert stat.S_ISLNK((await call(client.lstat, str(tmp_path / "link"))).st_mode or 0)
    (tmp_path / "target").write_bytes(b"x")
    assert await call(client.normalize, str(tmp_path / "link")) == str(tmp_path / "target")
    assert await call(client.normalize, str(tmp_path / "new")) == str(tmp_path / "new")
    assert await call(client.normalize, ".") == "/root"
    (tmp_path / "other").write_bytes(b"y")
    with pytest.raises(OSError, match="exists"):
        await call(client.rename, str(tmp_path / "other"), str(tmp_path / "target"))
    await call(client.posix_rename, str(tmp_path / "other"), str(tmp_path / "target"))
    assert (tmp_path / "target").read_bytes() == b"y"


async def test_modes_of_opening(client: paramiko.SFTPClient, tmp_path: Path) -> None:
    path = str(tmp_path / "file")

    def write(mode: str, data: bytes) -> None:
        with client.open(path, mode) as file:
            file.write(data)

    await call(write, "w", b"one")
    await call(write, "a", b"two")
    await call(write, "r+", b"T")
    assert (tmp_path / "file").read_bytes() == b"Tnetwo"
    with pytest.raises(OSError, match="File exists"):
        await call(write, "x", b"no")
    with pytest.raises(FileNotFoundError):
        await call(client.stat, str(tmp_path / "missing"))


async def test_a_user_has_only_his_own_rights(channel: Channel, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0o600)
    tmp_path.chmod(0o755)
    process = await channel.exec(Exec(builtin=Builtin.SFTP, stdin=True, user="nobody"))
    path = str(tmp_path / "secret").encode()
    opening = b"\x03\0\0\0\x07" + len(path).to_bytes(4, "big") + path + b"\0\0\0\x01\0\0\0\0"
    for packet in (b"\x01\0\0\0\x03", opening):
        await process.write_stdin(len(packet).to_bytes(4, "big") + packet)
    await process.close_stdin()
    answers = b""
    async with asyncio.timeout(TIMEOUT):
        while (output := await process.next_output()) is not None:
            answers += output.data
            process.acknowledge(output.stream, output.offset + len(output.data))
    assert b"Permission denied" in answers


@pytest.mark.parametrize(
    "packet",
    [
        b"\x03\0\0\0\x07\xff\xff\xff\xff",
        b"\x05\0\0\0\x07\0\0\0\x01x\0\0\0\0\0\0\0\0\xff\xff\xff\xff",
        b"\x06\0\0\0\x07",
        b"\xc8\0\0\0\x07\0\0\0\x03abc",
        b"\x63\0\0\0\x07",
        b"\x12\0\0\0\x07\0\0\0\x01a",
    ],
)
async def test_malformed_requests_get_an_answer(channel: Channel, packet: bytes) -> None:
    process = await channel.exec(Exec(builtin=Builtin.SFTP, stdin=True))
    for each in (b"\x01\0\0\0\x03", packet):
        await process.write_stdin(len(each).to_bytes(4, "big") + each)
    await process.close_stdin()
    answers = b""
    async with asyncio.timeout(TIMEOUT):
        while (output := await process.next_output()) is not None:
            answers += output.data
            process.acknowledge(output.stream, output.offset + len(output.data))
    version = 4 + int.from_bytes(answers[:4], "big")
    assert answers[version + 4] == 101 and answers[version + 5 : version + 9] == b"\0\0\0\x07"
    assert (await process.wait()).code == 0
    await process.release()
