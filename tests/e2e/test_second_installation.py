"""A second, empty installation on the same metadata (PostgreSQL) and bucket (SeaweedFS) sees and runs every workspace;
and the keys to both are nowhere in a VM."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mags.host.images import ImageStore, firmware
from mags.host.images.firmware import agent_path
from tests.kit import fleet as fleets
from tests.kit import users
from tests.kit.cache import CACHE
from tests.kit.installation import MAGS, Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

DEADLINE_S = 120.0
PASSWORD = "the-metadatas-password"
IMAGE = "test-other"
PIECE = 8 << 20


@pytest.fixture(scope="module")
def environment(base_image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with fleets.metadata() as meta, fleets.seaweedfs(tmp_path_factory.mktemp("weed")) as store:
        yield {
            "MAGS_HOST_POOL_TARGET": "0",
            "MAGS_HOST_STORAGE_KIND": "s3",
            "MAGS_HOST_STORAGE_META_URL": meta.replace("@", f":{PASSWORD}@", 1),
            "MAGS_HOST_STORAGE_ENDPOINT": store.endpoint,
            "MAGS_HOST_STORAGE_BUCKET": "shared",
            "MAGS_HOST_STORAGE_ACCESS_KEY": store.access_key,
            "MAGS_HOST_STORAGE_SECRET_KEY": store.secret_key,
        }


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    """An archive of a root file system that differs from the default image."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    tree = asyncio.run(firmware.root_tree(ImageStore(CACHE, agent_path()).cache, scratch))
    (tree / "etc/other").write_text("another image\n")
    archive = tmp_path / "root.tar"
    subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True, timeout=120)
    yield str(archive)


def test_an_empty_installation_runs_the_workspaces_of_another(environment: dict[str, str], image: str) -> None:
    with Installation(environment=environment) as first:
        try:
            _fill(first, image)
        except BaseException:
            first.cli("image", "remove", IMAGE, check=False)
            raise
    with Installation(environment=environment) as second:
        try:
            _use(second)
        finally:
            second.cli("image", "remove", IMAGE, check=False)


def _fill(first: Installation, image: str) -> None:
    first.out(
        "run", "-w", "base", "head -c 3000000 /dev/urandom > /root/f; md5sum < /root/f > /root/sum; echo b > /jfs/f"
    )
    first.cli("sync", "base")
    first.out("run", "-w", "fork", "--base", "base", "echo forked > /root/g")
    first.cli("stop", "base")
    first.cli("stop", "fork")
    first.cli("workspace", "delete", "--yes", "base")
    first.out(
        "run", "-w", "straight", "mkdir /jfs/d; head -c 5000000 /dev/urandom > /jfs/d/f; md5sum < /jfs/d/f > /jfs/sum"
    )
    first.cli("stop", "straight")
    first.cli("image", "import", IMAGE, image, timeout=300)
    first.out("run", "-w", "other-image", "--image", IMAGE, "cat /etc/other > /root/f")
    first.cli("stop", "other-image")
    token = users.another(first)
    theirs = {**first.environment, "MAGS_API_URL": first.url, "MAGS_API_TOKEN": token}
    first.out("run", "-w", "same", "echo mine > /root/f")
    first.cli("stop", "same")
    for words in (("run", "-w", "same", "echo theirs > /root/f"), ("stop", "same")):
        subprocess.run([MAGS, *words], env=theirs, check=True, capture_output=True, timeout=120)


def _use(second: Installation) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while len(found := second.json("workspace", "list")["workspaces"]) < 5:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    names = {one["workspace_id"] for one in found}
    assert names > {"fork", "straight", "other-image", "same"} and len(found) == 5
    assert all(one["size_bytes"] > 0 and one["last_synced_at"] is not None for one in found)
    check = "md5sum < /root/f | cmp - /root/sum && cat /root/g /jfs/f; echo more >> /root/g"
    assert second.out("run", "-w", "fork", check) == "forked\nb\n"
    second.cli("stop", "fork")
    assert second.out("run", "-w", "fork", "cat /root/g") == "forked\nmore\n"
    assert second.out("run", "-w", "straight", "md5sum < /jfs/d/f | cmp - /jfs/sum && echo whole") == "whole\n"
    assert second.out("run", "-w", "other-image", "cat /root/f /etc/other") == "another image\nanother image\n"
    assert second.json("workspace", "show", "other-image")["image"] == IMAGE
    # Their owner is unknown here: both are the first user's, one of them under a longer name.
    (longer,) = names - {"fork", "straight", "other-image", "same"}
    assert longer.startswith("same")
    assert sorted(second.out("run", "-w", name, "cat /root/f") for name in ("same", longer)) == ["mine\n", "theirs\n"]


def test_keys_to_the_store_are_nowhere_in_a_vm(environment: dict[str, str]) -> None:
    """Neither in what its root can read, nor in its hypervisor: command line, environment, memory (the guest's is in
    it)."""
    secrets = [environment["MAGS_HOST_STORAGE_SECRET_KEY"], environment["MAGS_HOST_STORAGE_ACCESS_KEY"], PASSWORD]
    words = [word.encode() for word in secrets]
    with Installation(environment=environment) as mags:
        mags.cli("new", "box", "-p", "--no-sleep")
        mags.cli("exec", "box", "echo a-mark > /dev/shm/f; echo kept > /root/f; echo straight > /jfs/f")
        mags.cli("sync", "box")
        look = (
            "env; cat /proc/mounts /proc/cmdline /proc/[0-9]*/environ /proc/[0-9]*/cmdline; dmesg; "
            "tar -cf - /etc /jfs /root /run /tmp /var 2>/dev/null"
        )
        seen = mags.cli("exec", "box", look).stdout
        assert b"nfs" in seen and b"straight" in seen and b"kept" in seen, "it has looked at the right things"
        assert [word for word in words if word in seen] == []
        programs = mags.programs()
        (pid,) = programs["qemu-system-x86_64"]
        for name in ("cmdline", "environ"):
            text = Path(f"/proc/{pid}/{name}").read_bytes()
            assert [word for word in words if word in text] == [], name
        found = _in_memory(pid, [*words, b"a-mark"])
        assert found == {b"a-mark"}, "the guest's memory was read, and only what is the guest's is in it"
        (host,) = programs["host"]
        assert _in_memory(host, words) == set(words), "where they are, they are found"
        mags.cli("stop", "box")


def _in_memory(pid: int, words: list[bytes]) -> set[bytes]:
    """Those of the words that are somewhere in the memory of a process."""
    found: set[bytes] = set()
    overlap = max(map(len, words))
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, last, rights = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line).groups()  # type: ignore[union-attr]
            if not rights.startswith("r") or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            for offset in range(int(first, 16), int(last, 16), PIECE):
                size = min(PIECE + overlap, int(last, 16) - offset)
                try:
                    data = os.pread(memory, size, offset)
                except OSError:
                    continue
                found |= {word for word in words if word in data}
    finally:
        os.close(memory)
    return found
