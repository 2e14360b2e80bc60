"""Workspaces out to a tar file and in again under another name, as their users see it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.kit.installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

FILL = r"""
mkdir -p /root/d; head -c 3000000 /dev/urandom > /root/d/data; ln /root/d/data /root/hard; ln -s data /root/d/soft
chmod 4750 /root/d/data; rm /etc/motd 2>/dev/null; echo changed > /etc/hosts.mine
mkdir /jfs/deep; echo "straight" > /jfs/deep/file; ln -s file /jfs/deep/link
"""
SUMS = (
    "cd /; sha256sum root/d/data root/hard etc/hosts.mine jfs/deep/file; readlink root/d/soft; readlink jfs/deep/link; "
    "stat -c '%a %h' root/d/data; test ! -e etc/motd && echo removed"
)


def test_a_workspace_goes_out_and_comes_in_under_another_name(mags: Installation, tmp_path: Path) -> None:
    file = tmp_path / "saved.tar"
    before = mags.out("run", "-w", "saved", f"{FILL}\n{SUMS}")
    assert "removed" in before and before.count("\n") == 8
    mags.cli("workspace", "export", "saved", str(file))
    with tarfile.open(file) as archive:
        assert {"mags-workspace.json", "jfs/deep/file"} <= set(archive.getnames())
    mags.cli("workspace", "import", "brought", str(file))
    made = mags.json("workspace", "show", "brought")
    assert made["synced"] and made["disk_gb"] == mags.json("workspace", "show", "saved")["disk_gb"]
    assert made["size_bytes"] > 3_000_000
    assert mags.out("run", "-w", "brought", SUMS) == before
    # It is one of its own: what is written there, and syncs of it, leave the other alone.
    mags.cli("run", "-w", "brought", "echo more > /root/d/data; echo more > /jfs/deep/file")
    mags.cli("sync", "brought")
    assert mags.out("run", "-w", "saved", SUMS) == before
    taken = mags.cli("workspace", "import", "brought", str(file), check=False)
    assert taken.returncode != 0 and b"already" in taken.stderr


def hostile() -> bytes:
    """An archive that would write through a link, with much behind it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data, link in (
            ("mags-workspace.json", b'{"id": "x", "disk_gb": 1}', ""),
            ("jfs/l", b"", "/tmp"),
            ("jfs/l/planted-by-mags-test", b"x", ""),
            ("jfs/large", bytes(20_000_000), ""),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if link:
                member.type, member.linkname = tarfile.SYMTYPE, link
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("data", [b"no archive at all", hostile()], ids=["garbage", "hostile"])
def test_a_harmful_archive_is_refused_and_leaves_nothing(mags: Installation, data: bytes) -> None:
    refused = mags.cli("workspace", "import", "harmful", "-", input=data, check=False)
    assert refused.returncode != 0 and b"rchive" in refused.stderr, refused.stderr
    assert not Path("/tmp/planted-by-mags-test").exists()
    assert mags.cli("workspace", "show", "harmful", check=False).returncode != 0
    assert "harmful" not in mags.out("workspace", "list")
