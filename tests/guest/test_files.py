"""Files through the agent."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mags.host.guest import Channel, Entry, GuestError


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def read(channel: Channel, path: Path, offset: int = 0, limit: int | None = None) -> bytes:
    async with await channel.read_file(str(path), offset=offset, limit=limit) as reader:
        return b"".join([piece async for piece in reader])


async def test_what_is_written_is_read_again(channel: Channel, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    path = tmp_path / "deep" / "er" / "file"
    assert await channel.write_file(str(path), pieces(data[:1_000_000], b"", data[1_000_000:])) == len(data)
    assert path.read_bytes() == data
    assert await read(channel, path) == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path], "no draft is left"


async def test_a_reader_knows_size_and_mode_before_the_bytes(channel: Channel, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    path.chmod(0o751)
    async with await channel.read_file(str(path)) as reader:
        assert (reader.size, stat.S_IMODE(reader.mode), reader.entry.type) == (100, 0o751, "file")


async def test_a_part_is_read(channel: Channel, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(200)))
    assert await read(channel, path, 10, 5) == bytes(range(10, 15))
    assert await read(channel, path, 195) == bytes(range(195, 200))
    assert await read(channel, path, 500) == b""
    assert await read(channel, path, 0, 0) == b""


async def test_files_of_the_kernel_are_read_although_they_have_no_size(channel: Channel) -> None:
    assert (await read(channel, Path("/proc/self/status"))).startswith(b"Name:")


async def test_a_new_file_gets_the_mode_and_an_old_one_keeps_its_own(channel: Channel, tmp_path: Path) -> None:
    path = tmp_path / "script"
    await channel.write_file(str(path), pieces(b"1"), mode=0o4755)
    assert stat.S_IMODE(path.stat().st_mode) == 0o4755
    os.chown(path, 12, 34)
    path.chmod(0o600)
    await channel.write_file(str(path), pieces(b"2"))
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, 12, 34)


async def test_a_file_appears_only_when_it_is_whole(channel: Channel, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        assert path.read_bytes() == b"old"
        raise OSError("the sender is gone")

    with pytest.raises(OSError, match="gone"):
        await channel.write_file(str(path), broken())
    await channel.ping()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.glob(".mags*")) == []


async def test_a_user_writes_files_of_his_own(channel: Channel, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    path = tmp_path / "mine"
    await channel.write_file(str(path), pieces(b"x"), user="nobody")
    assert path.stat().st_uid == 65534
    with pytest.raises(GuestError) as caught:
        await channel.write_file("/etc/passwd", pieces(b"x"), user="nobody", parents=False)
    assert caught.value.errno_name == "EACCES"


async def test_a_link_is_written_through(channel: Channel, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    await channel.write_file(str(tmp_path / "link"), pieces(b"new"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


async def test_a_directory_is_listed(channel: Channel, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("/some/where")
    (tmp_path / "c\nd").write_bytes(b"123")
    os.mkfifo(tmp_path / "e")
    (tmp_path / "f\udcff").write_bytes(b"")
    entries = {entry.name: entry for entry in await channel.list_directory(str(tmp_path))}
    assert set(entries) == {"a", "b", "c\nd", "e", "f\udcff", "agent.sock", "agent.err"}
    kinds = {name: entries[name].type for name in "abe"}
    assert kinds == {"a": "directory", "b": "symlink", "e": "other"}
    assert entries["b"].target == "/some/where"
    assert (entries["c\nd"].size, entries["c\nd"].permissions) == (3, 0o644)
    assert entries["c\nd"].mtime_ns == (tmp_path / "c\nd").stat().st_mtime_ns


async def test_a_directory_of_many_is_listed(channel: Channel, tmp_path: Path) -> None:
    names = {f"{n:04}" + "x" * 200 for n in range(2000)}
    (tmp_path / "many").mkdir()
    for name in names:
        (tmp_path / "many" / name).touch()
    assert {entry.name for entry in await channel.list_directory(str(tmp_path / "many"))} == names


async def test_stat_tells_of_the_link_itself(channel: Channel, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    entry = await channel.stat(str(tmp_path / "link"))
    assert isinstance(entry, Entry)
    assert (entry.name, entry.type, entry.target) == ("link", "symlink", "nowhere")


async def test_directories_are_made_renamed_and_removed(channel: Channel, tmp_path: Path) -> None:
    await channel.make_directory(str(tmp_path / "a"), 0o1777)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o1777
    with pytest.raises(GuestError, match="File exists"):
        await channel.make_directory(str(tmp_path / "a"), 0o755)
    await channel.make_directory(str(tmp_path / "a" / "b" / "c"), 0o755, parents=True)
    await channel.make_directory(str(tmp_path / "a" / "b" / "c"), 0o755, parents=True)
    await channel.rename(str(tmp_path / "a"), str(tmp_path / "z"))
    with pytest.raises(GuestError) as caught:
        await channel.remove(str(tmp_path / "z"))
    assert caught.value.errno_name == "ENOTEMPTY"
    await channel.remove(str(tmp_path / "z" / "b" / "c"))
    await channel.remove(str(tmp_path / "z"), recursive=True)
    assert not (tmp_path / "z").exists()


async def test_removing_a_tree_does_not_follow_links_out_of_it(channel: Channel, tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "me").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "keep")
    await channel.remove(str(tmp_path / "tree"), recursive=True)
    assert (tmp_path / "keep" / "me").exists() and not (tmp_path / "tree").exists()


@pytest.mark.parametrize(
    ("path", "errno_name"),
    [
        ("/not/there", "ENOENT"),
        ("/etc", "EISDIR"),
        ("/dev/null", "EINVAL"),
        ("", "ENOENT"),
        ("/" + "x" * 5000, "ENAMETOOLONG"),
    ],
)
async def test_what_cannot_be_read_says_why(channel: Channel, path: str, errno_name: str) -> None:
    with pytest.raises(GuestError) as caught:
        await channel.read_file(path)
    assert caught.value.errno_name == errno_name


@pytest.mark.parametrize(
    ("name", "errno_name"),
    [("missing/file", "ENOENT"), ("", "EISDIR"), ("plain/file", "ENOTDIR"), ("x/", "ENAMETOOLONG")],
)
async def test_what_cannot_be_written_says_why(channel: Channel, tmp_path: Path, name: str, errno_name: str) -> None:
    (tmp_path / "plain").touch()
    with pytest.raises(GuestError) as caught:
        await channel.write_file(str(tmp_path) + ("/" + name if name else ""), pieces(b"x"), parents=False)
    assert caught.value.errno_name == errno_name


async def test_a_fifo_does_not_hang_the_reader(channel: Channel, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(GuestError, match="Invalid argument"):
        await channel.read_file(str(tmp_path / "fifo"))


async def test_a_reader_may_stop_early(channel: Channel, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 10_000_000)
    for _ in range(150):
        reader = await channel.read_file(str(tmp_path / "big"))
        await reader.aclose()
    assert len(await read(channel, tmp_path / "big")) == 10_000_000
