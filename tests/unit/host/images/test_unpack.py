"""Archives are unpacked inside their tree, whatever they say."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from mags.host.images.errors import ImageInvalid
from mags.host.images.layout import SIZE_LIMIT, unpack
from tests.unit.host.images.archives import bomb, directory, hardlink, listing, member, symlink, tar


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("of the host")
    return tmp_path / "tree"


async def apply(tree: Path, archive: bytes, *, layer: bool = False, limit: int = SIZE_LIMIT) -> None:
    path = tree.with_name("archive.tar")
    path.write_bytes(archive)
    await unpack(path, tree, layer=layer, limit=limit)


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
async def test_files_links_owners_and_modes_arrive(tree: Path, mode: str) -> None:
    archive = tar(
        directory("./bin", 0o755),
        member("./bin/sh", b"shell", mode=0o4755, uid=12, gid=34, mtime=1_000_000),
        symlink("sbin", "bin"),
        hardlink("bin/bash", "./bin/sh"),
        directory("empty", 0o1777),
        directory("locked", 0o500),
        member("locked/in", b"side"),
        member("deep/down/file", b"parents are made"),
        mode=mode,
    )
    await apply(tree, archive)
    assert listing(tree) == {
        "bin": None,
        "bin/bash": b"shell",
        "bin/sh": b"shell",
        "deep": None,
        "deep/down": None,
        "deep/down/file": b"parents are made",
        "empty": None,
        "locked": None,
        "locked/in": b"side",
        "sbin": "bin",
    }
    status = (tree / "bin/sh").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (0o4755, 12, 34, 1_000_000)
    assert status.st_nlink == 2
    assert (tree / "empty").stat().st_mode & 0o7777 == 0o1777
    assert (tree / "locked").stat().st_mode & 0o7777 == 0o500


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "a/..", ".."])
async def test_names_that_lead_out_are_refused(tree: Path, name: str) -> None:
    with pytest.raises(ImageInvalid, match="leads out"):
        await apply(tree, tar(member(name, b"overwritten")))
    assert (tree.parent / "secret").read_text() == "of the host"


async def test_an_absolute_name_is_one_of_the_tree(tree: Path) -> None:
    secret = tree.parent / "secret"
    await apply(tree, tar(member(str(secret), b"overwritten")))
    assert secret.read_text() == "of the host"
    assert (tree / str(secret).lstrip("/")).read_bytes() == b"overwritten"


async def test_links_do_not_lead_out(tree: Path) -> None:
    host = str(tree.parent)
    archive = tar(
        symlink("absolute", host),
        symlink("relative", "../../../../../../../../" + host.lstrip("/")),
        directory(host),
        member("absolute/secret", b"overwritten"),
        member("relative/secret", b"overwritten"),
        symlink("file", f"{host}/secret"),
        member("file", b"replaces the link"),
    )
    await apply(tree, archive)
    assert (tree.parent / "secret").read_text() == "of the host"
    assert (tree / "file").read_bytes() == b"replaces the link"


async def test_a_hard_link_to_a_file_of_the_host_is_refused(tree: Path) -> None:
    with pytest.raises(ImageInvalid):
        await apply(tree, tar(hardlink("stolen", str(tree.parent / "secret"))))
    assert (tree.parent / "secret").stat().st_nlink == 1


async def test_devices_and_pipes_are_left_out(tree: Path) -> None:
    kinds = {"null": tarfile.CHRTYPE, "sda": tarfile.BLKTYPE, "pipe": tarfile.FIFOTYPE}
    nodes = [member(name, type=kind, devmajor=1, devminor=3) for name, kind in kinds.items()]
    await apply(tree, tar(*nodes, member("file", b"")))
    assert listing(tree) == {"file": b""}


async def test_an_archive_larger_than_its_limit_is_refused(tree: Path) -> None:
    with pytest.raises(ImageInvalid, match="larger"):
        await apply(tree, tar(member("zeros", bytes(100_000))), limit=99_999)


async def test_an_archive_that_would_fill_the_memory_is_refused(tree: Path) -> None:
    with pytest.raises(ImageInvalid, match="too much memory"):
        await apply(tree, bomb(1024))


@pytest.mark.parametrize("archive", [b"", b"garbage" * 1000, tar(member("cut", b"x" * 5000))[:1500]])
async def test_what_is_no_whole_archive_is_refused(tree: Path, archive: bytes) -> None:
    with pytest.raises(ImageInvalid, match="cannot be unpacked"):
        await apply(tree, archive)


async def test_zstd_is_named(tree: Path) -> None:
    with pytest.raises(ImageInvalid, match="zstd"):
        await apply(tree, b"\x28\xb5\x2f\xfd" + bytes(100))


async def test_capabilities_of_files_are_kept(tree: Path) -> None:
    # VFS_CAP_REVISION_2, cap_net_raw permitted: capabilities(7)
    value = bytes.fromhex("0000000200200000000000000000000000000000")
    header = {"SCHILY.xattr.security.capability": value.decode("utf-8", "surrogateescape")}
    await apply(tree, tar(member("ping", b"", pax_headers=header)))
    assert os.getxattr(tree / "ping", "security.capability") == value


class TestLayers:
    """OCI image-spec, layer.md."""

    async def lay(self, tree: Path, *layers: bytes) -> dict[str, bytes | str | None]:
        for archive in layers:
            await apply(tree, archive, layer=True)
        return listing(tree)

    async def test_a_whiteout_removes_what_lay_below(self, tree: Path) -> None:
        lower = tar(member("a/file", b"1"), member("a/tree/x", b"2"), member("b", b"3"))
        upper = tar(member("a/.wh.file", b""), member("a/.wh.tree", b""), member(".wh.missing", b""))
        assert await self.lay(tree, lower, upper) == {"a": None, "b": b"3"}

    async def test_an_opaque_directory_hides_only_lower_layers(self, tree: Path) -> None:
        lower = tar(member("a/old", b"1"), member("a/both/old", b"2"))
        upper = tar(member("a/new", b"3"), member("a/both/new", b"4"), member("a/.wh..wh..opq", b""))
        assert await self.lay(tree, lower, upper) == {"a": None, "a/both": None, "a/both/new": b"4", "a/new": b"3"}

    async def test_types_may_change_between_layers(self, tree: Path) -> None:
        lower = tar(member("a/x", b"1"), member("b", b"2"), symlink("c", "a"))
        upper = tar(member("a", b"now a file"), directory("b"), member("b/y", b"3"), member("c", b"no link any more"))
        expected = {"a": b"now a file", "b": None, "b/y": b"3", "c": b"no link any more"}
        assert await self.lay(tree, lower, upper) == expected

    async def test_a_whiteout_reaches_nothing_outside(self, tree: Path) -> None:
        upper = tar(symlink("up", str(tree.parent)), member("up/.wh.secret", b""), member(".wh...", b""))
        await self.lay(tree, upper)
        assert (tree.parent / "secret").exists()

    async def test_plain_archives_have_no_whiteouts(self, tree: Path) -> None:
        await apply(tree, tar(member("a", b"1"), member(".wh.a", b"2")))
        assert listing(tree) == {"a": b"1", ".wh.a": b"2"}
